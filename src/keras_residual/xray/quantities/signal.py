"""Signal propagation: mean and variance of the stream by depth."""

from __future__ import annotations

from typing import Any

from keras import ops


def squared_mean(x: Any, channel_axis: int = -1) -> Any:
    """Returns `mean_c (mean_{n,h,w} x)^2`: how far the channels have drifted from zero.

    Range: 0 and above. Healthy: far below the variance; where it grows with depth, the mean shifts, which weight
    standardisation or a norm in the branch cures.

    Args:
        x: Tensor `(batch, …)`.
        channel_axis: Axis of the channels.

    Reference:
        Brock et al., Characterizing signal propagation to close the performance gap in unnormalized ResNets, 2021.
        https://arxiv.org/abs/2101.08692, section 3.1
    """
    x = ops.cast(x, "float32")
    return ops.mean(ops.square(ops.mean(x, axis=_all_but(x, channel_axis))))


def variance(x: Any, channel_axis: int = -1) -> Any:
    """Returns `mean_c var_{n,h,w} x`, of the stream or of what a branch adds.

    Range: 0 and above. Healthy: about constant, or growing by one a block within a stage; growth by a factor a block
    is an explosion.

    Args:
        x: Tensor `(batch, …)`.
        channel_axis: Axis of the channels.

    Reference:
        Brock et al. 2021, section 3.1. https://arxiv.org/abs/2101.08692
    """
    x = ops.cast(x, "float32")
    return ops.mean(ops.var(x, axis=_all_but(x, channel_axis)))


def power(x: Any) -> Any:
    """Returns the mean of `x^2`, in float32. Range: 0 and above.

    Args:
        x: Tensor of any shape.
    """
    return ops.mean(ops.square(ops.cast(x, "float32")))


def _all_but(x: Any, axis: int) -> tuple[int, ...]:
    rank = len(x.shape)
    return tuple(i for i in range(rank) if i != axis % rank) if rank > 1 else (0,)
