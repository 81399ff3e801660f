"""Which examples train and which test: drawn by seed, each class in its share."""

from __future__ import annotations

import math

import numpy as np

from keras_residual import _optional
from keras_residual._errors import bad_data, shown
from keras_residual.data.request import Request


def split_indices(y: np.ndarray, classes: tuple[str, ...], request: Request) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sorted indices of the training and of the test examples.

    Args:
        y: int32 class indices (stratified), or float64 numbers, shape `(examples,)`.
        classes: Class names in index order, `()` for numbers.
        request: Gives `test_fraction` and `seed`; the same values give the same split.

    Raises:
        ValueError: If there are too few examples to have each class on both sides.
    """
    if request.test_fraction == 1:
        return np.arange(0), np.arange(len(y))
    selection = _optional.require("sklearn.model_selection", extra="train")
    present = 1
    if classes:
        _check_single(y, classes, request)
        present = len(np.unique(y))
    test_count = math.ceil(request.test_fraction * len(y))
    if min(test_count, len(y) - test_count) < present:
        raise bad_data(
            request.owner, f"{len(y)} examples and a test fraction of {request.test_fraction} make "
            f"{len(y) - test_count} for training and {test_count} for testing, and each side needs {present} at least"
            f"{', one a class' if classes else ''}", "Add examples or change the test fraction.",
        )  # fmt: skip
    train, test = selection.train_test_split(
        np.arange(len(y)),
        test_size=test_count,
        random_state=request.seed,
        stratify=_by_appearance(y) if classes else None,
    )
    return np.sort(train), np.sort(test)


def places_in_groups(groups: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Returns the place of each element in its group, from 0, in the order of `by`.

    Args:
        groups: What elements of one group have in common, shape `(elements,)`.
        by: What they are ordered by, same shape; of equal ones the earlier comes first.
    """
    order = np.lexsort((by, groups))
    ordered, places = groups[order], np.arange(len(groups))
    starts = np.maximum.accumulate(np.where(np.r_[True, ordered[1:] != ordered[:-1]], places, 0))
    result = np.empty(len(groups), int)
    result[order] = places - starts
    return result


def _check_single(y: np.ndarray, classes: tuple[str, ...], request: Request) -> None:
    counts = np.bincount(y, minlength=len(classes))
    single = [name for name, count in zip(classes, counts, strict=True) if count == 1]
    if single:
        names = ", ".join(shown(name) for name in single[:5]) + (", …" if len(single) > 5 else "")
        raise bad_data(
            request.owner, f"{'class' if len(single) == 1 else 'classes'} {names} "
            f"{'has' if len(single) == 1 else 'have'} one example only, which cannot be in both training and test",
            "Add examples or take the class out.",
        )  # fmt: skip


def _by_appearance(y: np.ndarray) -> np.ndarray:
    """Returns the classes numbered as they appear, so that the split does not depend on the order of their names."""
    _, first, inverse = np.unique(y, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]
