"""How much what two depths say is the same."""

from __future__ import annotations

from typing import Any

import numpy as np


def gram(features: Any) -> np.ndarray:
    """Returns the centred `X X'` of features, with the norm 1 (0 for features that do not differ).

    The sum of the product of two of them, entry by entry, is the linear centred kernel alignment of two depths: 1 where
    their features are the same up to a rotation.

    Range of the alignment: 0 to 1. Neighbours near 1 repeat one another; a large square of such depths is capacity that
    is not used. With few samples it is biased upwards. Cost: one forward pass, and `batch^2` for each pair of depths.

    Args:
        features: Array `(batch, …)`, of the same samples at each depth; the rest may differ.

    Reference:
        Kornblith et al., Similarity of Neural Network Representations Revisited, 2019. https://arxiv.org/abs/1905.00414
    """
    x = np.asarray(features, "float64").reshape(len(features), -1)
    x = x - x.mean(axis=0)
    largest = np.abs(x).max()
    x = x / largest if largest > 0 else x
    kernel = x @ x.T
    norm = np.linalg.norm(kernel)
    return kernel / norm if norm else kernel
