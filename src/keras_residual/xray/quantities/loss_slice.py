"""The loss along lines and planes through the weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

REACH = 1.0
"""How far a slice goes to either side. At 1 each filter has been moved by as much as it is long."""

SLICE_POINTS = 51
SURFACE_POINTS = 21


def filter_normalised(drawn: np.ndarray, weights: np.ndarray, filters: Sequence[int] | None) -> np.ndarray:
    """Returns a direction of which each filter is as long as that of the weights: `d_f ||w_f|| / ||d_f||`.

    So that a slice tells the same of a net and of one with all its weights times ten behind a norm, which computes the
    same. Zeros for a weight without filters: biases, and the factors and shifts of norms, stay where they are, as in
    the authors' code (`--xignore biasbn`).

    Args:
        drawn: Array of normal draws.
        weights: Array of the same shape.
        filters: The axes that number filters; None for a weight that stays where it is.

    Reference:
        Li et al., Visualizing the Loss Landscape of Neural Nets, 2018. https://arxiv.org/abs/1712.09913, section 4
    """
    if filters is None:
        return np.zeros(weights.shape, "float32")
    kept = {axis % weights.ndim for axis in filters}
    others = tuple(axis for axis in range(weights.ndim) if axis not in kept)
    lengths, own = (np.sqrt(np.square(x.astype("float64")).sum(axis=others, keepdims=True)) for x in (drawn, weights))
    return (drawn * (own / np.where(lengths > 0, lengths, 1.0))).astype("float32")


def curvature(at: Sequence[float], losses: Sequence[float]) -> float:
    """Returns the second derivative of a slice in its middle, from the three points there.

    Range: any number. It is `d' H d` for the Hessian `H` and the direction `d`: a sharp minimum has a large one. A
    random direction meets the mean of all curvatures; the largest is the sharpness.

    Args:
        at: Distances along the direction, evenly spaced, an odd number of them.
        losses: The loss at each.
    """
    middle = len(at) // 2
    step = at[middle + 1] - at[middle]
    return float((losses[middle + 1] - 2 * losses[middle] + losses[middle - 1]) / step**2)


def slice_points(count: int = SLICE_POINTS) -> np.ndarray:
    """Returns the distances along one direction, `(count, 1)`, with 0 among them.

    Args:
        count: Number of points, odd.
    """
    return np.linspace(-REACH, REACH, count)[:, None].astype("float32")


def surface_points(count: int = SURFACE_POINTS) -> np.ndarray:
    """Returns the distances along two directions, `(count * count, 2)`, row by row.

    Args:
        count: Number of points along each, odd.
    """
    line = np.linspace(-REACH, REACH, count)
    return np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2).astype("float32")
