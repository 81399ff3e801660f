"""The part of the training examples by which the best epoch is chosen."""

from __future__ import annotations

import numpy as np

from keras_residual.data.split import places_in_groups


def split_validation(
    y: np.ndarray, *, fraction: float, classes: int, seed: int, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sorted indices of the examples to learn from and of those to choose by.

    Args:
        y: Class indices, or numbers, of shape `(examples,)`.
        fraction: Share in `(0, 1)` to choose by.
        classes: Number of classes, each of which gives its share and keeps one to learn from; 0 for numbers.
        seed: The same seed gives the same split.
        own: Places of the validation part that the data themselves have, which then is the one; None without.

    Raises:
        ValueError: If there are too few examples to spare one.
    """
    if own is not None and 0 < len(own) < len(y):
        return np.setdiff1d(np.arange(len(y)), own), own
    groups = y if classes else np.zeros(len(y), int)
    # A stream of its own: the split of training from test draws from the same seed.
    places = places_in_groups(groups, np.random.default_rng((seed, 1)).random(len(y)))
    sizes = np.bincount(groups)[groups]
    # Of classes in a row, drawn, the first shares of all come before the second ones. The last of a class stays.
    spare = np.flatnonzero(places < sizes - 1)
    if len(spare) == 0:
        raise ValueError(
            f"{len(y)} training examples are too few to keep one back for choosing the best epoch. Add examples."
        )
    order = np.argsort((places[spare] + 0.5) / sizes[spare], kind="stable")
    validation = np.sort(spare[order[: max(1, round(fraction * len(y)))]])
    return np.setdiff1d(np.arange(len(y)), validation), validation
