import re

import keras
import numpy as np
import pytest

from keras_residual.data import load_dataset
from keras_residual.data.keras_sets import PICTURE_SETS

pytestmark = pytest.mark.any_backend


def serve(monkeypatch, name, load_data):
    monkeypatch.setattr(getattr(keras.datasets, name), "load_data", load_data)


def test_a_failed_download_names_the_set_and_the_sets_that_need_no_network(monkeypatch):
    def fail():
        raise Exception("URL fetch failure on https://x/mnist.npz: None -- [Errno -2] Name or service not known")

    serve(monkeypatch, "mnist", fail)
    message = (
        "Data 'mnist': the set is not on this machine and could not be downloaded (URL fetch failure on "
        "https://x/mnist.npz: None -- [Errno -2] Name or service not known). "
        "Check the network; the sets digits, breast_cancer, wine and diabetes need none."
    )
    with pytest.raises(ConnectionError, match=f"^{re.escape(message)}$"):
        load_dataset("mnist")


def test_what_keras_prints_of_a_download_stays_off_standard_output(monkeypatch, capsys):
    def load_data():
        print("Downloading data")
        return (np.zeros((2, 28, 28), np.uint8), np.arange(2)), (np.zeros((1, 28, 28), np.uint8), np.arange(1))

    serve(monkeypatch, "mnist", load_data)
    data = load_dataset("mnist")
    assert capsys.readouterr() == ("", "Downloading data\n")
    assert data.x_train.shape == (2, 28, 28, 1)
    assert data.classes == tuple("0123456789")


@pytest.mark.parametrize(("name", "count"), [("mnist", 10), ("fashion_mnist", 10), ("cifar10", 10), ("cifar100", 100)])
def test_every_index_of_a_set_has_a_class_name_of_its_own(name, count):
    assert len(set(PICTURE_SETS[name])) == count


def test_labels_of_shape_n_1_are_flattened_and_the_own_split_is_kept(monkeypatch):
    x, y = np.zeros((3, 32, 32, 3), np.uint8), np.array([[9], [0], [5]], np.uint8)
    serve(monkeypatch, "cifar10", lambda: ((x, y), (x[:1], y[:1])))
    data = load_dataset("cifar10")
    np.testing.assert_array_equal(data.y_train, [9, 0, 5])
    assert data.y_train.dtype == np.int32
    np.testing.assert_array_equal(data.y_test, [9])


def test_california_housing_is_split_by_the_seed_and_its_columns_picked(monkeypatch):
    asked = {}

    def load_data(**arguments):
        asked.update(arguments)
        x = np.arange(24, dtype=np.float32).reshape(3, 8)
        return (x[:2], np.array([1.0, 2.0])), (x[2:], np.array([3.0]))

    serve(monkeypatch, "california_housing", load_data)
    data = load_dataset("california_housing", test_fraction=0.4, seed=7, drop=("latitude",))
    assert asked == {"test_split": 0.4, "seed": 7}
    assert data.features[:2] == ("longitude", "housing_median_age")
    np.testing.assert_array_equal(data.x_train[0], [0, 2, 3, 4, 5, 6, 7])
    assert (data.task, data.y_test.dtype) == ("regression", np.float64)


def test_a_set_of_pictures_has_no_columns():
    message = "Data 'mnist': `drop` must be left out, but received ('a',) (tuple). Pictures have no columns."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_dataset("mnist", drop=("a",))
