"""Numbers that are none or too small for their type, and a norm that neither overflows nor underflows."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_residual.xray.quantities.chart import DepthChart
from keras_residual.xray.quantities.quantity import Band, Quantity

SMALLEST_NORMAL = {"float16": 2.0**-14, "bfloat16": 2.0**-126, "float32": 2.0**-126, "float64": 2.0**-1022}
"""The smallest number of a type that has all its digits."""


def nan_share(x: Any, first_axis: int = 0) -> Any:
    """Returns the share of entries that are not a number. Range: 0 to 1; healthy: 0.

    Args:
        x: Float tensor.
        first_axis: First of the axes to be counted over; those before it stay.
    """
    return _share(ops.isnan(x), first_axis)


def inf_share(x: Any, first_axis: int = 0) -> Any:
    """Returns the share of entries that are infinite. Range: 0 to 1; healthy: 0.

    Args:
        x: Float tensor.
        first_axis: First of the axes to be counted over; those before it stay.
    """
    return _share(ops.isinf(x), first_axis)


def underflow_share(x: Any, first_axis: int = 0) -> Any:
    """Returns the share of entries below the smallest normal number of the tensor's own type, zeros among them.

    Range: 0 to 1. In float16 that number is 6.1e-5: what is smaller loses digits, and below 6e-8 it is zero. Healthy:
    little more than the zeros that an activation makes. In float32 and bfloat16 (1.2e-38) only zeros count.

    Args:
        x: Float tensor.
        first_axis: First of the axes to be counted over; those before it stay.

    Reference:
        Micikevicius et al., Mixed Precision Training, 2018. https://arxiv.org/abs/1710.03740, figure 2
    """
    smallest = SMALLEST_NORMAL[keras.backend.standardize_dtype(x.dtype)]
    # In float32, since a processor may take what is smaller than normal for zero in its own type.
    size: Any = ops.abs(ops.cast(x, "float32"))
    return _share(size < max(smallest, SMALLEST_NORMAL["float32"]), first_axis)


def _share(where: Any, first_axis: int) -> Any:
    return ops.mean(ops.cast(where, "float32"), axis=tuple(range(first_axis, len(where.shape))))


def scaled_norm(x: Any, first_axis: int = 0) -> Any:
    """Returns `sqrt(sum(x^2))` over the axes from `first_axis` on, in float32.

    The square of a gradient of 1e-25 is zero in float32, and that of 1e25 infinite; a deep net has both. So the largest
    entry is taken out of the sum.

    Args:
        x: Float tensor of any shape.
        first_axis: First of the axes to be summed over; those before it stay.
    """
    x = ops.cast(x, "float32")
    axes = tuple(range(first_axis, len(x.shape)))
    if not axes:
        return ops.abs(x)
    largest: Any = ops.max(ops.abs(x), axis=axes, keepdims=True)
    scale = ops.where(ops.logical_and(largest > 0, largest < float("inf")), largest, ops.ones_like(largest))
    total: Any = ops.sqrt(ops.sum(ops.square(x / scale), axis=axes))
    return total * ops.reshape(scale, total.shape)


NAN = Quantity(
    key="nan",
    definition="share of the values that are NaN",
    of="values",
    by=nan_share,
    label="not a number (NaN)",
    band=Band(low=0.0, high=0.0),
    percent=True,
    chart=DepthChart(
        title="Where do numbers break?",
        words="The part of the values that are no numbers (NaN, as from 0/0) or infinite. There should be none. They "
        "spread from the first block, from the left, that has one; the cause is there or in front of it: what to "
        "change says where.",
        axis="broken values",
        chapter="numbers",
        bars=True,
        domain=(0.0, 1.0),
        beside=("inf", "infinite"),
        only_if_any=True,
    ),
)

INF = Quantity(
    key="inf",
    definition="share of the values that are infinite",
    of="values",
    by=inf_share,
    label="infinite",
    band=Band(low=0.0, high=0.0),
    percent=True,
)
