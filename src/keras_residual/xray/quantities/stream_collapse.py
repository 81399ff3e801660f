"""How alike the streams of a stack have become."""

from __future__ import annotations

from typing import Any

from keras import ops


def stream_collapse(streams: Any) -> Any:
    """Returns the mean cosine between two different streams of a token, over all pairs and tokens.

    Range: `-1 / (n - 1)` to 1. Streams begin as copies of one another, at 1, and stay so as long as all are written to
    alike; in training they part. Where they have parted and come near 1 again further up, the mixing has averaged them,
    and `n` streams cost what they cost for the work of one. A stream of zeros counts as at a right angle to all.

    Args:
        streams: Tensor `(…, n, width)`, at least two streams.

    Reference:
        An analysis of stream collapse, 2026. https://arxiv.org/abs/2606.03483
    """
    x: Any = ops.cast(streams, "float32")
    count = int(x.shape[-2])
    largest: Any = ops.max(ops.abs(x), axis=-1, keepdims=True)
    x = x / ops.where(largest > 0, largest, ops.ones_like(largest))
    norm: Any = ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True))
    unit = x / ops.where(norm > 0, norm, ops.ones_like(norm))
    # The square of the sum of unit vectors is the sum of all cosines, those of each with itself among them.
    together: Any = ops.sum(ops.square(ops.sum(unit, axis=-2)), axis=-1)
    own = ops.sum(ops.square(unit), axis=(-2, -1))
    return ops.mean((together - own) / (count * (count - 1)))
