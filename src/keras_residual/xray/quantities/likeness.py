"""How alike the samples have become on their way."""

from __future__ import annotations

from typing import Any

from keras import ops


def sample_cosine(x: Any) -> Any:
    """Returns the mean cosine between two different samples of a batch, each taken as one vector.

    Range: -1 to 1; 0 for a batch of one. Healthy: about that of the input. Where it comes near 1 the net can no longer
    tell its inputs apart, and a ReLU is on for all of them or off for all.

    Args:
        x: Tensor `(batch, …)`.

    Reference:
        Poole et al., Exponential expressivity in deep neural networks through transient chaos, 2016.
        https://arxiv.org/abs/1606.05340, eq. 5
        Noci et al., Signal Propagation in Transformers, 2022. https://arxiv.org/abs/2206.03126
    """
    batch = int(x.shape[0])
    if batch < 2:
        return ops.zeros((), "float32")
    x = ops.reshape(ops.cast(x, "float32"), (batch, -1))
    largest: Any = ops.max(ops.abs(x), axis=1, keepdims=True)
    x = x / ops.where(largest > 0, largest, ops.ones_like(largest))
    norm: Any = ops.sqrt(ops.sum(ops.square(x), axis=1, keepdims=True))
    unit = x / ops.where(norm > 0, norm, ops.ones_like(norm))
    # The square of the sum of unit vectors is the sum of all cosines, those of each with itself among them.
    together: Any = ops.sum(ops.square(ops.sum(unit, axis=0)))
    return (together - ops.sum(ops.square(unit))) / (batch * (batch - 1))
