"""A norm that neither overflows nor underflows on its way."""

from __future__ import annotations

from typing import Any

from keras import ops


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
