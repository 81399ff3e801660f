"""Answers as numbers: labels of any type to class indices, numbers to float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from keras_residual._errors import did_you_mean
from keras_residual._order import natural_key
from keras_residual.data.dataset import Task

# Whole numbers with at most so many distinct values are taken for classes.
MOST_WHOLE_CLASSES = 20


def choose_task(values: np.ndarray, task: Literal["auto", "classification", "regression"]) -> Task:
    """Returns the task: text, booleans and few distinct whole numbers are classes, other numbers are regression.

    Args:
        values: Shape `(examples,)`, of any NumPy type.
        task: `"auto"` decides by the values; the others are returned as they are.
    """
    if task != "auto":
        return task
    if values.dtype.kind in "iu":
        return "classification" if len(np.unique(values)) <= MOST_WHOLE_CLASSES else "regression"
    return "regression" if values.dtype.kind == "f" else "classification"


def label_texts(values: np.ndarray) -> np.ndarray:
    """Returns the labels as the text that names a class: `3` and `3.0` are `"3"`, `True` is `"true"`."""
    if values.dtype.kind == "b":
        return np.where(values, "true", "false")
    if values.dtype.kind == "f" and np.all(values == np.floor(values)) and np.all(np.abs(values) < 2**53):
        values = values.astype(np.int64)
    return values.astype(str)


def class_names(values: np.ndarray) -> tuple[str, ...]:
    """Returns the distinct labels as text; numbers by value, text in natural order."""
    distinct = np.unique(values)
    texts = [str(text) for text in label_texts(distinct)]
    return tuple(texts if distinct.dtype.kind in "iufb" else sorted(texts, key=natural_key))


def encode_classes(values: np.ndarray, classes: Sequence[str], *, owner: str, what: str = "label") -> np.ndarray:
    """Returns the index of each label in `classes`.

    Args:
        values: Shape `(examples,)`, of any NumPy type.
        classes: Class names in index order.
        owner: Who asks, for the message.
        what: What holds the labels, for the message.

    Returns:
        int32 of shape `(examples,)`, in `[0, len(classes))`.

    Raises:
        ValueError: If a label is not among the classes.
    """
    distinct, inverse = np.unique(label_texts(values), return_inverse=True)
    index = {name: position for position, name in enumerate(classes)}
    for row, label in enumerate(distinct):
        if str(label) not in index:
            count = int(np.sum(inverse == row))
            raise ValueError(
                f"{owner}: {what} {str(label)!r} ({count} example{'s' if count > 1 else ''}) is not one of the classes."
                f"{did_you_mean(str(label), classes)}"
            )
    return np.array([index[str(label)] for label in distinct], dtype=np.int32)[inverse]


def encode_numbers(values: np.ndarray, *, owner: str, what: str = "label") -> np.ndarray:
    """Returns numbers as finite float32 of shape `(examples,)`.

    Raises:
        ValueError: If the values are text, or one is not a finite number in float32.
    """
    if values.dtype.kind not in "iufb":
        raise ValueError(
            f"{owner}: {what} holds text, for example {str(values[0])!r}, and regression needs numbers. "
            f"Set the task to 'classification' or name another column."
        )
    with np.errstate(over="ignore"):
        numbers = values.astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if len(wrong):
        raise ValueError(
            f"{owner}: {what} must be a finite number, but is {values[wrong[0]]} in row {wrong[0] + 1}. "
            f"Correct the value or remove the row."
        )
    return numbers
