"""The part of the training examples by which the best epoch is chosen."""

from __future__ import annotations

import numpy as np


def split_validation(y: np.ndarray, *, fraction: float, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sorted indices of the examples to learn from and of those to choose by.

    Args:
        y: Class indices, or numbers, of shape `(examples,)`.
        fraction: Share in `(0, 1)` to choose by.
        classes: Number of classes, each of which gives its share; 0 for numbers.
        seed: The same seed gives the same split.

    Raises:
        ValueError: If there are too few examples to spare one.
    """
    # A stream of its own: the split of training from test draws from the same seed.
    rng = np.random.default_rng((seed, 1))
    groups = [np.flatnonzero(y == index) for index in range(classes)] if classes else [np.arange(len(y))]
    taken = _shares([len(group) for group in groups], wanted=max(1, round(fraction * len(y))))
    if sum(taken) == 0:
        raise ValueError(
            f"{len(y)} training examples are too few to keep one back for choosing the best epoch. Add examples."
        )
    chosen = [rng.permutation(group)[:count] for group, count in zip(groups, taken, strict=True)]
    validation = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(y)), validation), validation


def _shares(sizes: list[int], *, wanted: int) -> list[int]:
    """Splits `wanted` over groups by size, by largest remainder; each group keeps at least one for training."""
    ideal = np.array(sizes) * wanted / sum(sizes)
    spare = np.maximum(np.array(sizes) - 1, 0)
    taken = np.minimum(ideal.astype(int), spare)
    for index in np.argsort(taken - ideal, kind="stable"):
        if taken.sum() >= wanted:
            break
        taken[index] = min(taken[index] + 1, spare[index])
    return taken.tolist()
