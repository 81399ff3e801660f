"""Answers as numbers: labels of any type to class indices, numbers to float64."""

from __future__ import annotations

import contextlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from keras_residual._errors import bad_data, did_you_mean, shown
from keras_residual._order import composed, natural_key
from keras_residual.data.columns import finite_numbers
from keras_residual.data.dataset import Task

# Control characters, parts that are not UTF-8, line ends; marks that turn the writing direction of what follows.
_NO_CHARACTERS, _TURNS = ("Cc", "Cs", "Zl", "Zp"), ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
_MOST_ALIKE, _AT_A_TIME = 5, 2**20
# Whole numbers with at most so many distinct values are taken for classes.
MOST_WHOLE_CLASSES = 20
# What else to do where numbers of a target would be one 64-bit float.
KEEP_APART = ", or set the task to 'classification'"


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
    """Returns labels as the text that names a class; of numbers without a spelling `3` and `3.0` are `"3"`.

    `True` is `"true"`. A CSV spells its labels itself, and these are kept as they stand there.
    """
    if values.dtype.kind in "OU":
        return np.array([composed(str(label)) for label in values], object)
    if values.dtype.kind == "b":
        return np.where(values, "true", "false")
    if values.dtype.kind == "f" and np.all(values == np.floor(values)) and np.all(np.abs(values) < 2**53):
        values = values.astype(np.int64)
    return values.astype(str)


def class_names(values: np.ndarray, texts: np.ndarray | None = None, *, owner: str) -> tuple[str, ...]:
    """Returns the distinct labels as text; numbers by value, text in natural order.

    Args:
        values: Shape `(examples,)`, of any NumPy type.
        texts: How the labels are spelled, where that is known and they are no text; same shape.
        owner: Who asks, for the message.

    Raises:
        ValueError: If a name cannot be written or shown as one line.
    """
    if texts is None:
        distinct, _ = _coded(values)
        texts = label_texts(distinct)
    else:
        texts, codes = _coded(texts)
        first = np.zeros(len(texts), int)
        first[codes[::-1]] = np.arange(len(codes))[::-1]
        distinct = values[first]
    of = {str(text): value for text, value in zip(texts, distinct, strict=True)}
    by_value = distinct.dtype.kind in "iufb"
    names = tuple(sorted(of, key=lambda name: (of[name] if by_value else 0, natural_key(name))))
    check_names(names, owner=owner)
    return names


def spelled_in_two_ways(classes: Sequence[str]) -> tuple[str, ...]:
    """Returns a sentence about classes that are hard to tell apart; `()` for none.

    They are one number or truth value, or one text but for blanks, capitals and signs that are not seen.
    """
    groups: dict[Any, list[str]] = {}
    for name in classes:
        groups.setdefault(_meaning(name), []).append(name)
    alike = [" and ".join(map(shown, names)) for names in groups.values() if len(names) > 1]
    if not alike:
        return ()
    return (
        f"Classes are named as the data spells them, so these are different: {'; '.join(alike[:_MOST_ALIKE])}"
        f"{f'; and {len(alike) - _MOST_ALIKE} more' if len(alike) > _MOST_ALIKE else ''}.",
    )


def _meaning(name: str) -> Any:
    """Returns what a reader takes the name of a class for."""
    seen = "".join(sign for sign in unicodedata.normalize("NFKC", name) if unicodedata.category(sign) != "Cf")
    text = " ".join(seen.casefold().split())
    number = _number(text)
    return text if number is None else number


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


def encode_classes(
    values: np.ndarray,
    classes: Sequence[str],
    texts: np.ndarray | None = None,
    *,
    owner: str,
    what: str = "label",
) -> np.ndarray:
    """Returns the index of each label in `classes`.

    A label that is a number, and spelled otherwise than any class, is of the one class that is the same number: a model
    may know a class as `7`, from a Parquet file, that a CSV calls `007`.

    Args:
        values: Shape `(examples,)`, of any NumPy type.
        classes: Class names in index order.
        texts: How the labels are spelled, where that is known and they are no text; same shape.
        owner: Who asks, for the message.
        what: What holds the labels, for the message.

    Returns:
        int32 of shape `(examples,)`, in `[0, len(classes))`.

    Raises:
        ValueError: If a label is not among the classes.
    """
    labels, codes = _coded(values if texts is None else texts)
    distinct = label_texts(labels) if texts is None else labels
    index = {name: position for position, name in enumerate(classes)}
    if values.dtype.kind in "iufb":
        by_number = _by_number(classes)
        for label in set(map(str, distinct)) - index.keys():
            if _number(label) in by_number:
                index[label] = by_number[_number(label)]
    for row, label in enumerate(distinct):
        if str(label) not in index:
            count = int(np.sum(codes == row))
            raise bad_data(
                owner, f"{what} {shown(str(label))} ({count} example{'s' if count > 1 else ''}) is not one of the "
                "classes", did_you_mean(str(label), classes).strip(),
            )  # fmt: skip
    return np.array([index[str(label)] for label in distinct], dtype=np.int32)[codes]


def _coded(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct values in order, and the place of each value among them, int32.

    NumPy's own way takes five times the memory of the values, and most of the time where they are Python's strings.
    """
    if values.dtype.kind == "O":
        places: dict[Any, int] = {}
        codes = np.fromiter((places.setdefault(value, len(places)) for value in values), np.int32, len(values))
        ordered = sorted(places)
        into = np.empty(len(ordered), np.int32)
        into[[places[value] for value in ordered]] = np.arange(len(ordered))
        return np.array([*ordered, None], object)[:-1], into[codes]
    distinct, codes = np.unique(values), np.empty(len(values), np.int32)
    for start in range(0, len(values), _AT_A_TIME):
        codes[start : start + _AT_A_TIME] = np.searchsorted(distinct, values[start : start + _AT_A_TIME])
    return distinct, codes


def _by_number(classes: Sequence[str]) -> dict[Any, int]:
    """Returns the index of each class whose name is a number that no other's is."""
    counts = Counter(map(_number, classes))
    return {
        _number(name): position
        for position, name in enumerate(classes)
        if _number(name) is not None and counts[_number(name)] == 1
    }


def _number(text: str) -> Any:
    """Returns what a spelling means: a number, `"true"`, `"false"`, or None."""
    if text.lower() in ("true", "false"):
        return text.lower()
    if not set(text) <= set("0123456789+-.eE"):
        return None
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return None


def encode_numbers(values: np.ndarray, *, owner: str, what: str = "label") -> np.ndarray:
    """Returns numbers as finite float64 of shape `(examples,)`.

    Raises:
        ValueError: If the values are text, or as `finite_numbers`.
    """
    if values.dtype.kind not in "iufb":
        raise bad_data(
            owner, f"{what} holds text, for example {shown(str(values[0]))}, and regression needs numbers",
            "Set the task to 'classification' or name another column.",
        )  # fmt: skip
    return finite_numbers(values, owner=owner, what=what, keep_apart=KEEP_APART)
