"""What a configuration leaves open is chosen by the data; what it says stays."""

import numpy as np
import pytest

from keras_residual.data import Dataset
from keras_residual.training.config import TrainConfig
from keras_residual.training.defaults import CHOICES, resolve

pytestmark = pytest.mark.any_backend


def pictures(side=32, name="holiday"):
    x, y = np.zeros((2, side, side, 3), np.uint8), np.array([0, 1], np.int32)
    return Dataset(name, "pictures", "classification", x, y, x, y, ("a", "b"), ())


def table():
    x, y = np.zeros((2, 1)), np.array([0.0, 1.0])
    return Dataset("t", "table", "regression", x, y, x, y, (), ("a",))


def test_pictures():
    config = resolve(TrainConfig(), pictures(), examples=5000)
    assert config.model.name == "small_resnet"
    assert (config.augment.shift, config.augment.flip) == (4, False)
    assert (config.epochs, config.batch_size) == (38, 128)
    assert config.data.classes == ("a", "b")


def test_only_pictures_that_may_be_are_mirrored():
    assert resolve(TrainConfig(), pictures(name="cifar10"), examples=50_000).augment.flip is True


def test_tables_are_not_augmented_even_if_asked():
    config = resolve(TrainConfig().with_overrides(["augment.shift=3", "augment.flip=true"]), table(), examples=100)
    assert config.model.name == "tabular_resnet"
    assert (config.augment.shift, config.augment.flip) == (0, False)
    assert config.data.task == "regression"


@pytest.mark.parametrize("examples", [1, 5, 100, 1000, 10**5, 10**7])
def test_any_number_of_examples_has_a_schedule(examples):
    config = resolve(TrainConfig(), table(), examples=examples)
    assert 1 <= config.batch_size <= examples
    assert 10 <= config.epochs <= 100


def test_what_is_said_stays():
    settings = [
        "epochs=3",
        "batch_size=7",
        "model.name=cifar_resnet20",
        "model.drop_path_rate=0.25",
        "optimizer.learning_rate=0.5",
        "optimizer.weight_decay=0.125",
        "augment.shift=2",
        "augment.flip=true",
    ]
    config = TrainConfig().with_overrides(settings)
    resolved = resolve(config, pictures(name="digits"), examples=100)
    assert "digits" in CHOICES
    for section in ("model", "optimizer", "augment", "epochs", "batch_size"):
        assert getattr(resolved, section) == getattr(config, section)


def test_resolving_twice_changes_nothing():
    once = resolve(TrainConfig(), pictures(), examples=100)
    assert resolve(once, pictures(), examples=100) == once
