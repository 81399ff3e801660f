"""Whether the gradients at nearby inputs have anything to do with one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

POINTS = 256
LAGS = (1, 2, 5, 10)


def curve(x: Any, points: int = POINTS) -> np.ndarray:
    """Returns inputs on an arc through the first two samples, of about their length.

    Args:
        x: Array `(batch, …)` of at least two samples.
        points: Number of inputs.
    """
    samples = np.asarray(x, "float32")
    t = np.linspace(-2, 2, points, dtype="float32").reshape(-1, *(1,) * (samples.ndim - 1))
    return samples[0][None] * np.cos(t) + samples[1][None] * np.sin(t)


def gradient_autocorrelation(gradients: Any, lags: Sequence[int] = LAGS) -> dict[int, float]:
    """Returns for each lag `k` the correlation of the gradients at inputs that are `k` places apart on a curve.

    Range: -1 to 1. Brown noise, as of a shallow or a residual net: near 1 at lag 1 and falling slowly; white noise, as
    of a deep plain net with batch norm: near 0. Cost: 256 gradients, one pass of a batch of that size.

    Args:
        gradients: Gradient of the output with respect to each input, `(points, …)`.
        lags: Distances along the curve.

    Reference:
        Balduzzi et al., The Shattered Gradients Problem, 2017. https://arxiv.org/abs/1702.08591, section 2
    """
    g = np.asarray(gradients, "float64").reshape(len(gradients), -1)
    g = g - g.mean(axis=0)
    total = (g * g).mean(axis=0).sum()
    if not total:
        return dict.fromkeys(lags, 0.0)
    return {lag: float((g[:-lag] * g[lag:]).mean(axis=0).sum() / total) for lag in lags}
