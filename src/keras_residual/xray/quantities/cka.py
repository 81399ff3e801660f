"""How much what two depths say is the same."""

from __future__ import annotations

from typing import Any

import numpy as np


def linear_cka(one: Any, other: Any) -> float:
    """Returns the linear centred kernel alignment of two depths' features: 1 where they are the same up to a rotation.

    Range: 0 to 1. Neighbours near 1 repeat one another; a large square of such depths is capacity that is not used.
    With few samples it is biased upwards. Cost: one forward pass, and `batch^2` for each pair of depths.

    Args:
        one: Array `(batch, …)`.
        other: Array `(batch, …)` of the same samples; the rest may differ.

    Reference:
        Kornblith et al., Similarity of Neural Network Representations Revisited, 2019. https://arxiv.org/abs/1905.00414
    """
    return _alignment(gram(one), gram(other))


def gram(features: Any) -> np.ndarray:
    """Returns the centred `X X'` of features, with the norm 1 (0 for features that do not differ).

    Args:
        features: Array `(batch, …)`.
    """
    x = np.asarray(features, "float64").reshape(len(features), -1)
    x = x - x.mean(axis=0)
    largest = np.abs(x).max()
    x = x / largest if largest > 0 else x
    kernel = x @ x.T
    norm = np.linalg.norm(kernel)
    return kernel / norm if norm else kernel


def _alignment(one: np.ndarray, other: np.ndarray) -> float:
    return float((one * other).sum())
