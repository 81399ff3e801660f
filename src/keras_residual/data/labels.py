"""Answers as numbers: labels of any type to class indices, numbers to float64."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Literal

import numpy as np

from keras_residual._errors import bad_data, did_you_mean, shown
from keras_residual._order import natural_key
from keras_residual.data.columns import LARGEST_NUMBER
from keras_residual.data.dataset import Task

# Control characters, parts that are not UTF-8, line ends; marks that turn the writing direction of what follows.
_NO_CHARACTERS, _TURNS = ("Cc", "Cs", "Zl", "Zp"), ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
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
    if values.dtype.kind in "OU":
        return values
    if values.dtype.kind == "b":
        return np.where(values, "true", "false")
    if values.dtype.kind == "f" and np.all(values == np.floor(values)) and np.all(np.abs(values) < 2**53):
        values = values.astype(np.int64)
    return values.astype(str)


def class_names(values: np.ndarray, *, owner: str) -> tuple[str, ...]:
    """Returns the distinct labels as text; numbers by value, text in natural order.

    Raises:
        ValueError: If a name cannot be written or shown as one line.
    """
    distinct = np.unique(values)
    texts = [str(text) for text in label_texts(distinct)]
    names = tuple(texts if distinct.dtype.kind in "iufb" else sorted(texts, key=natural_key))
    check_names(names, owner=owner)
    return names


def check_names(names: Sequence[str], *, owner: str) -> None:
    """Raises a ValueError for a class whose name is used twice, or has characters that are none to read.

    Class names go into files, tables and pages; a line end or what a terminal obeys has no place there, nor has a part
    that is not UTF-8, as names of folders may have.
    """
    seen = set()
    for name in names:
        if not name.isprintable() and any(map(_no_character, name)):
            raise bad_data(
                owner, f"the class {shown(name)} has characters in its name that cannot be shown", "Rename the class."
            )
        if name in seen:
            raise bad_data(owner, f"two classes are called {shown(name)}", "Rename one.")
        seen.add(name)


def _no_character(sign: str) -> bool:
    return unicodedata.category(sign) in _NO_CHARACTERS or unicodedata.bidirectional(sign) in _TURNS


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
            raise bad_data(
                owner, f"{what} {shown(str(label))} ({count} example{'s' if count > 1 else ''}) is not one of the "
                "classes", did_you_mean(str(label), classes).strip(),
            )  # fmt: skip
    return np.array([index[str(label)] for label in distinct], dtype=np.int32)[inverse]


def encode_numbers(values: np.ndarray, *, owner: str, what: str = "label") -> np.ndarray:
    """Returns numbers as finite float64 of shape `(examples,)`.

    Raises:
        ValueError: If the values are text, or one is not finite or beyond what 32-bit floats hold.
    """
    if values.dtype.kind not in "iufb":
        raise bad_data(
            owner, f"{what} holds text, for example {shown(str(values[0]))}, and regression needs numbers",
            "Set the task to 'classification' or name another column.",
        )  # fmt: skip
    numbers = values.astype(np.float64)
    wrong = np.flatnonzero(~(np.abs(numbers) <= LARGEST_NUMBER))
    if len(wrong):
        rule = "a finite number" if not np.isfinite(numbers[wrong[0]]) else f"a number up to {LARGEST_NUMBER:.1e}"
        raise bad_data(
            owner, f"{what} must be {rule}, but is {values[wrong[0]]} in row {wrong[0] + 1}",
            "Correct the value or remove the row.",
        )  # fmt: skip
    return numbers
