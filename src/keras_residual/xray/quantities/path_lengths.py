"""A residual net as the sum of its paths: how long those are that carry the gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def path_lengths(gains: Sequence[float]) -> list[float]:
    """Returns for `k = 0 … L` the part of the gradient that paths through `k` branches carry.

    A gradient that passes the branch of block `l` is multiplied by about its gain `q_l`, and one that takes the
    shortcut by 1, so that length `k` has the weight of the elementary symmetric polynomial `e_k(q)`. The parts add up
    to 1. Cost: that of `chi`.

    Args:
        gains: Gain of each branch, 0 and above.

    Reference:
        Veit et al., Residual Networks Behave Like Ensembles of Relatively Shallow Networks, 2016.
        https://arxiv.org/abs/1605.06431, section 4
    """
    weights = np.ones(1)
    for gain in gains:
        # Normalised at each block: one path takes the branch, the other the shortcut.
        weights = np.convolve(weights, [1 / (1 + gain), gain / (1 + gain)])
    return [float(weight) for weight in weights]


def effective_depth(gains: Sequence[float]) -> float:
    """Returns the mean length of the paths that carry the gradient, `sum_l q_l / (1 + q_l)`.

    Range: 0 to the number of blocks. ResNet-110, of 54 blocks, has some 10 to 34 (Veit et al. 2016).

    Args:
        gains: Gain of each branch, 0 and above.
    """
    return float(sum(gain / (1 + gain) for gain in gains))
