"""Some of the numbers in a weight, enough for a histogram of them."""

from __future__ import annotations

from typing import Any

from keras import ops


def some_entries(value: Any, first_axis: int, most: int) -> Any:
    """Returns entries at equal distances, as many as `most` or a few less, in float32; all where there are no more.

    Args:
        value: Float tensor.
        first_axis: First of the axes that are taken together; those before it stay.
        most: Number of entries, 1 or more.
    """
    flat: Any = ops.reshape(ops.cast(value, "float32"), (*value.shape[:first_axis], -1))
    # An odd distance: the number of channels is even as a rule, and all entries would be of a few of them.
    distance = -(-flat.shape[-1] // most) | 1
    return flat[..., ::distance]
