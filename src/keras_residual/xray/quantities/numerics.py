"""Numbers that are none, and numbers too small for their type."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

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
