"""Whether the gradient arrives: its size in the stream, block by block, and what is lost on its way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_residual.xray.quantities.chart import DepthChart
from keras_residual.xray.quantities.numerics import nan_share, scaled_norm, underflow_share
from keras_residual.xray.quantities.quantity import Band, Quantity
from keras_residual.xray.stages import Block


def gradient_norm(gradient: Any, batch_axis: int = 0) -> Any:
    """Returns the mean over the samples of `||dL/dx||_F`, where `x` is the stream behind a block.

    The loss is taken as the sum over the samples, so that the number does not depend on the size of the batch.
    Range: 0 and above; only its course with depth has a meaning. Cost: a part of the one backward pass.

    Args:
        gradient: Gradient of the mean loss, with the batch at `batch_axis`; the axes before it, if any, stay.
        batch_axis: Axis of the samples.

    Reference:
        Glorot & Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010, section 4.2.
    """
    norms = scaled_norm(gradient, batch_axis + 1)
    mean: Any = ops.mean(norms, axis=batch_axis)
    return mean * gradient.shape[batch_axis]


def gradient_spread(gradient: Any, batch_axis: int = 0) -> Any:
    """Returns the standard deviation of `||dL/dx||_F` over the samples, divided by its mean; 0 where the mean is 0.

    Range: 0 (each sample sends the same) and above; around 1 or more, few samples decide the step.

    Args:
        gradient: As in `gradient_norm`.
        batch_axis: Axis of the samples.
    """
    norms = scaled_norm(gradient, batch_axis + 1)
    mean: Any = ops.mean(norms, axis=batch_axis, keepdims=True)
    safe = ops.where(mean > 0, mean, ops.ones_like(mean))
    return ops.sqrt(ops.mean(ops.square(norms / safe - mean / safe), axis=batch_axis))


def gradient_over_time(gradient: Any) -> Any:
    """Returns the gradient at the end of a sequence that gets less of it, in parts of the largest at any step.

    Range: 0 to 1. A recurrent layer of which the last output counts hands the gradient back step by step: where this is
    near 0, the first steps of a sequence do not matter to training. Steps without any gradient at the ends, which a
    mask leaves out, do not count.

    Args:
        gradient: Gradient with respect to the sequences, `(batch, steps, …)`.

    Reference:
        Bengio, Simard & Frasconi, Learning long-term dependencies with gradient descent is difficult, 1994.
    """
    norms: Any = ops.max(scaled_norm(gradient, 2), axis=0)
    some = ops.cast(norms > 0, "int32")
    ends: tuple[Any, Any] = ops.take(norms, ops.argmax(some)), ops.take(ops.flip(norms), ops.argmax(ops.flip(some)))
    most: Any = ops.max(norms)
    least: Any = ops.minimum(*ends)
    return least / ops.where(most > 0, most, ops.ones_like(most))


def ratio_of_ends(norms: Sequence[float]) -> float:
    """Returns the first over the last of the norms: 1 where the gradient arrives as it left.

    Range: above 0. Healthy at initialisation: 0.1 to 10. Below, the gradient vanishes on its way to the input; above,
    it explodes. Not a number where an end is zero or missing.

    Args:
        norms: Norm of the gradient in front of the first block, and behind each block.
    """
    if len(norms) < 2 or not norms[-1]:
        return float("nan")
    return float(norms[0] / norms[-1])


def slope(norms: Sequence[float]) -> float:
    """Returns by how much `ln(norm)` changes from one block to the next, by least squares.

    Range: any number. Healthy: near 0; `s` means a factor of `exp(s)` a block. Zeros and what is not finite are left
    out; not a number where fewer than two are left.

    Args:
        norms: Norms in order of depth.
    """
    values = np.asarray(norms, "float64")
    kept = np.isfinite(values) & (values > 0)
    if kept.sum() < 2:
        return float("nan")
    depth = np.flatnonzero(kept).astype("float64")
    depth -= depth.mean()
    return float((depth * np.log(values[kept])).sum() / (depth**2).sum())


def _profile(blocks: Sequence[Block], model: Block) -> list[float]:
    """Returns the norm of the gradient at the input, where it is known, and behind each block."""
    norms = [block["gradient_norm"] for block in blocks if block["gradient_norm"] is not None]
    return norms if model["gradient_norm_input"] is None else [model["gradient_norm_input"], *norms]


GRADIENT_NORM = Quantity(
    key="gradient_norm",
    definition="norm of `dL/dx`, mean over the samples",
    of="gradient",
    by=lambda gradient, batch_axis, scale: gradient_norm(gradient, batch_axis) / scale,
    rows=np.hypot,
    label="gradient",
    column="gradient",
    headline=(
        "gradient, first row over last",
        "the first `gradient` over the last: below 1 it vanishes on its way to the input, above 1 it explodes",
    ),
    band=Band(low=0.1, high=10.0, of="stage"),
    history=True,
    tensorboard=True,
    chart=DepthChart(
        title="Does the learning signal reach every block?",
        words="A net learns from its mistakes: a correction, the gradient, starts at the answer (right) and travels "
        "back through all blocks to the input (left). The line shows how strong it is behind each block. It should "
        "stay within the shaded band, neither ten times weaker nor ten times stronger than at the end of its stage. "
        "Where it sinks to the left by powers of ten, the first blocks get no correction and do not learn; where it "
        "climbs to the left, they are thrown about.",
        axis="strength of the gradient",
        chapter="learning",
        log=True,
    ),
)

GRADIENT_NAN = Quantity(
    key="gradient_nan",
    definition="share of that gradient that is NaN",
    of="gradient",
    by=lambda gradient, batch_axis, scale: nan_share(gradient, batch_axis),
    label="gradient that is not a number",
    band=Band(low=0.0, high=0.0),
    percent=True,
)

GRADIENT_SPREAD = Quantity(
    key="gradient_spread",
    definition="deviation of that norm from sample to sample, over its mean",
    of="gradient",
    by=lambda gradient, batch_axis, scale: gradient_spread(gradient, batch_axis),
    label="difference between examples' gradients",
)

GRADIENT_UNDERFLOW = Quantity(
    key="gradient_underflow",
    definition="in float16: share of the gradient that is too small for its type",
    of="gradient",
    by=lambda gradient, batch_axis, scale: underflow_share(gradient, batch_axis),
    label="gradient too small for float16",
    band=Band(high=0.5),
    percent=True,
    dtype="float16",
    chart=DepthChart(
        title="Is the gradient too small for the numbers of the machine?",
        words="This net computes with short numbers (float16), which have no room for very small values. The line "
        "shows which part of the gradient is lost to that. Above the shaded band most of it is gone.",
        axis="lost values",
        chapter="numbers",
        domain=(0.0, 1.0),
    ),
)

GRADIENT_OVER_TIME = Quantity(
    key="gradient_over_time",
    definition="of a recurrent layer without gates: what is left of the gradient at the far end of its sequences",
    of="recurrent gradient",
    by=gradient_over_time,
)

GRADIENT_RATIO = Quantity(
    key="gradient_ratio",
    definition="the gradient at the input over that behind the last block",
    of="model",
    of_whole=True,
    by=lambda blocks, model: ratio_of_ends(_profile(blocks, model)),
    history=True,
    tensorboard=True,
)

GRADIENT_SLOPE = Quantity(
    key="gradient_slope",
    definition="by how much the logarithm of the gradient changes from block to block",
    of="model",
    of_whole=True,
    by=lambda blocks, model: slope(_profile(blocks, model)),
    tensorboard=True,
)

LOSS = Quantity(
    key="loss",
    definition="the loss of the batch",
    of="model",
    of_whole=True,
    by=lambda blocks, model: model["loss"],
    history=True,
    tensorboard=True,
)
