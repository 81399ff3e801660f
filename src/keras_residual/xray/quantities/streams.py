"""The streams of a stack of several: how alike they have become, and what the matrices make of them that carry them."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_residual import _backend
from keras_residual.xray.quantities.chart import DepthChart
from keras_residual.xray.quantities.quantity import Band, Quantity


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


def transport_gain(transports: Any) -> Any:
    """Returns for each depth the gain of the product of all transport matrices up to there, as a mean over the tokens.

    The gain of a matrix is its largest sum of absolute values in a row, which bounds what the streams become on their
    way up, or in a column, which bounds what the gradient becomes on its way down, whichever is greater. No branch has
    a part in it: it is what the shortcuts do.

    Range: 0 and above. Healthy: about 1, which doubly stochastic matrices and the identity have; up to the number of
    streams where all of them are written from one. Free matrices
    of a gain of 1.1 each make 14,000 of 100 blocks.

    Args:
        transports: Tensor `(depth, …, n, n)`, the last two axes (stream made, stream used).

    Returns:
        Tensor `(depth,)` in float32.

    Reference:
        Xie et al., mHC: Manifold-Constrained Hyper-Connections, 2025. https://arxiv.org/abs/2512.24880, "Amax gain
        magnitude": 3000 in Hyper-Connections, 1.6 in mHC
    """
    transports = ops.cast(transports, "float32")
    shape = tuple(transports.shape[1:])
    # Product and size apart: the one of a thousand matrices may well be no float32 while the gain of some is.
    product: Any = ops.broadcast_to(ops.eye(shape[-1], dtype="float32"), shape)
    logarithm: Any = ops.zeros(shape[:-2], dtype="float32")

    def body(carry: Any, x: Any, _: Any) -> tuple[Any, tuple[Any]]:
        product, logarithm = carry
        product = ops.matmul(x[0], product)
        largest: Any = ops.max(ops.abs(product), axis=(-2, -1))
        largest = ops.where(largest > 0, largest, ops.ones_like(largest))
        product = product / largest[..., None, None]
        logarithm = logarithm + ops.log(largest)
        size: Any = ops.abs(product)
        sums: Any = ops.maximum(ops.max(ops.sum(size, axis=-1), axis=-1), ops.max(ops.sum(size, axis=-2), axis=-1))
        return (product, logarithm), (ops.mean(sums * ops.exp(logarithm)),)

    _, (gains,) = _backend.scan(body, (product, logarithm), (transports,))
    return gains


def double_stochasticity(transport: Any) -> Any:
    """Returns by how much the sum of a row or of a column misses 1, at the worst of them, as a mean over the tokens.

    Range: 0 and above. A doubly stochastic matrix, and the identity, have 0: mixing then neither adds to the sum of the
    streams nor takes from it. mHC comes to about 1e-5 and to more where its logits are large; the free matrices of
    Hyper-Connections to anything.

    Args:
        transport: Tensor `(…, n, n)`.

    Reference:
        Xie et al., mHC: Manifold-Constrained Hyper-Connections, 2025. https://arxiv.org/abs/2512.24880, section 4
        Sinkhorn & Knopp, Concerning nonnegative matrices and doubly stochastic matrices, 1967.
    """
    sums: list[Any] = [ops.sum(ops.cast(transport, "float32"), axis=axis) for axis in (-1, -2)]
    errors = [ops.max(ops.abs(total - 1.0), axis=-1) for total in sums]
    return ops.mean(ops.maximum(*errors))


STREAM_COLLAPSE = Quantity(
    key="stream_collapse",
    definition="of several [streams](api/topologies.md): mean cosine between two of them behind the block; 1 as they "
    "begin",
    of="streams",
    by=stream_collapse,
    label="likeness of the streams",
    column="streams",
    chart=DepthChart(
        title="Do the parallel streams stay different?",
        words="This net carries several streams side by side. The line shows how alike they are. They begin as copies "
        "of one another, at 1, and part in training. Where a trained net comes back to 1, the streams have become one "
        "again, and the others are paid for and not used.",
        axis="likeness (cosine)",
        domain=(-1.0, 1.0),
    ),
)

TRANSPORT_GAIN = Quantity(
    key="transport_gain",
    definition="gain of the product of the matrices that carry the streams from the first block to this one",
    of="transports",
    by=transport_gain,
    label="gain of all mixings up to here",
    column="transport",
    band=Band(low=0.03, high=30.0),
    chart=DepthChart(
        title="Does the mixing of the streams keep the signal's size?",
        words="Before each block the streams are mixed. This is what all mixings up to a block together can multiply "
        "the signal by. It should stay about 1; a line that climbs by powers of ten explodes with depth.",
        axis="gain",
        log=True,
        neutral=1.0,
    ),
)

DOUBLE_STOCHASTICITY = Quantity(
    key="double_stochasticity",
    definition='with `"mhc"`: by how much rows and columns of the matrix miss the sum 1',
    of="transport",
    by=double_stochasticity,
    label="error of the mixing of streams",
    band=Band(high=0.05),
    topology="MHC",
)
