"""Signal propagation: mean, variance and power of the stream by depth, and how alike the samples have become in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_residual.xray.quantities.chart import DepthChart
from keras_residual.xray.quantities.gradients import ratio_of_ends, slope
from keras_residual.xray.quantities.quantity import Band, Quantity
from keras_residual.xray.stages import Block


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


def _all_but(x: Any, axis: int) -> tuple[int, ...]:
    rank = len(x.shape)
    return tuple(i for i in range(rank) if i != axis % rank) if rank > 1 else (0,)


def _profile(blocks: Sequence[Block], model: Block) -> list[float]:
    """Returns the power at the input, where it is known, and behind each block."""
    powers = [block["power"] for block in blocks]
    return powers if model["power_input"] is None else [model["power_input"], *powers]


VARIANCE = Quantity(
    key="variance",
    definition="variance of each channel of `x`, mean over the channels",
    of="stream",
    by=variance,
    label="variance of the signal",
    column="variance",
    headline=(
        "variance, last row over first",
        "the last `variance` over the first: what the blocks make of the size of the signal",
    ),
    headline_step=-1,
    history=True,
    tensorboard=True,
    chart=DepthChart(
        title="Does the signal keep its size?",
        words="On its way from the input (left) to the answer (right) the signal is a list of numbers. The solid line "
        "shows how much they vary behind each block. At best it stays level or climbs slowly. One that "
        "climbs by powers of ten ends in numbers too large for the machine, one that falls by powers of ten ends in "
        "nothing. The line of the squared mean should run below: where it overtakes, all numbers drift to one side.",
        axis="variance",
        chapter="signal",
        log=True,
        beside=("squared_mean", "squared mean"),
    ),
)

SQUARED_MEAN = Quantity(
    key="squared_mean",
    definition="squared mean of each channel of `x`, mean over the channels: how far they drift from 0",
    of="stream",
    by=squared_mean,
)

POWER = Quantity(key="power", definition="mean square of `x`", of="stream", by=lambda x, channel_axis: power(x))

SAMPLE_COSINE = Quantity(
    key="sample_cosine",
    definition="mean cosine between two samples of `x`",
    of="stream",
    by=lambda x, channel_axis: sample_cosine(x),
    label="likeness of the examples",
    band=Band(high=0.95, of="input"),
    chart=DepthChart(
        title="Can the net still tell the examples apart?",
        words="How alike two different examples look behind each block: 1 means the same but for size, 0 means nothing "
        "in common. A line that runs up to 1 and stays there: all examples have become one, and no later block can "
        "tell them apart again.",
        axis="likeness (cosine)",
        chapter="signal",
        domain=(-1.0, 1.0),
    ),
)

SIGNAL_RATIO = Quantity(
    key="signal_ratio",
    definition="the mean square behind the last block over that of the input",
    of="model",
    of_whole=True,
    by=lambda blocks, model: ratio_of_ends(_profile(blocks, model)[::-1]),
    history=True,
    tensorboard=True,
)

SIGNAL_SLOPE = Quantity(
    key="signal_slope",
    definition="by how much the logarithm of the mean square changes from block to block",
    of="model",
    of_whole=True,
    by=lambda blocks, model: slope(_profile(blocks, model)),
    tensorboard=True,
)
