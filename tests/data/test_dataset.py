import dataclasses
import re

import numpy as np
import pytest

from keras_residual.data import Dataset
from keras_residual.data.dataset import targets_that_do_not_vary

pytestmark = pytest.mark.any_backend

PICTURES = np.zeros((4, 2, 2, 1), np.uint8)
LABELS = np.array([0, 1, 0, 1], np.int32)
GOOD = Dataset("d", "pictures", "classification", PICTURES, LABELS, PICTURES[:2], LABELS[:2], ("a", "b"), ())


def test_input_shape_is_that_of_one_example():
    assert GOOD.input_shape == (2, 2, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"classes": ("a",)},
            "Data 'd': there is only the class 'a', and telling classes apart needs two at least. "
            "Add examples of another class.",
        ),
        (
            {"classes": ()},
            "Data 'd': there is no class, and telling classes apart needs two at least. Add examples of another class.",
        ),
        ({"x_test": PICTURES[:0], "y_test": LABELS[:0]}, "Data 'd': there are no test examples."),
        ({"y_train": LABELS[:3]}, "Data 'd': x_train has 4 rows and y_train has 3."),
        (
            {"x_test": np.zeros((2, 3, 2, 1), np.uint8)},
            "Data 'd': an example has shape (2, 2, 1) in x_train and (3, 2, 1) in x_test.",
        ),
        (
            {"x_train": PICTURES.astype("float32")},
            "Data 'd': x_train must be uint8 of shape (examples, height, width, 1 or 3), "
            "but is float32 of shape (4, 2, 2, 1).",
        ),
        (
            {"kind": "table", "x_train": np.zeros((4, 2)), "features": ("u",)},
            "Data 'd': x_train must be floats of shape (examples, 1), a column a feature, "
            "but is float64 of shape (4, 2).",
        ),
        (
            {"y_train": LABELS.astype("int64")},
            "Data 'd': y_train must be int32 of shape (examples,), but is int64 of shape (4,).",
        ),
        ({"y_train": LABELS + 1}, "Data 'd': y_train must be in [0, 2), but runs from 1 to 2."),
        (
            {"task": "regression"},
            "Data 'd': regression has no classes, but received ('a', 'b').",
        ),
    ],
)
def test_a_part_that_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        dataclasses.replace(GOOD, **change)


TRAIN, R2 = "The target is {} in every training example, so there is nothing to learn", "so R² is not defined."


@pytest.mark.parametrize(
    ("train", "test", "notes"),
    [
        ([1, 2], [1, 2], ()),
        ([5, 5], [1, 2], (TRAIN.format(5) + ".",)),
        ([5, 5], [5, 5], (TRAIN.format(5) + ", and 5 in every test example, " + R2,)),
        ([0.125, 0.125], [3], (TRAIN.format(0.125) + ".", "R² is not defined for a single test example.")),
        ([1, 2], [-1.7e9, -1.7e9], ("The target is -1700000000 in every test example, " + R2,)),
        ([], [7, 7, 7], ("The target is 7 in every test example, " + R2,)),
        ([], [7], ("R² is not defined for a single test example.",)),
    ],
)
def test_a_target_that_does_not_vary_is_said(train, test, notes):
    train, test = np.array(train, float), np.array(test, float)
    data = Dataset("d", "table", "regression", train[:, None], train, test[:, None], test, (), ("x",))
    assert targets_that_do_not_vary(data) == notes


def test_classes_may_all_be_one():
    assert targets_that_do_not_vary(dataclasses.replace(GOOD, y_train=LABELS * 0, y_test=LABELS[:2] * 0)) == ()
