"""Hyper-Connections: several streams that connections read, mix and write with learned weights."""

from __future__ import annotations

from typing import Any, cast

import keras
import numpy as np
from keras import ops

from keras_residual._arguments import flag, owner_of, whole_number
from keras_residual._errors import bad_argument
from keras_residual._types import Shape
from keras_residual.residual.serialization import register
from keras_residual.stacks.topologies.base import Coefficients, Link, Place
from keras_residual.stacks.topologies.streams import (
    NORM_EPSILON,
    ByDepth,
    MultiStream,
    MultiStreamLink,
    check_width,
)


@register
class HyperConnectionsLink(MultiStreamLink):
    """A connection with the matrix `HC = [[0, B], [A_m, A_r]]`: `H' = A_r^T H + B^T F(A_m^T H)`.

    The rows of `H`, `(k, width)`, are the fractions of each stream, one stream after the other.

    Args:
        streams: Number of streams, `n`.
        dynamic: Whether the matrix also depends on the rows.
        fractions: Number of fractions of a stream, `m`; `k = n m`.
        **kwargs: As for every link of several streams.
    """

    def __init__(self, streams: int, dynamic: bool, fractions: int, **kwargs: Any) -> None:
        super().__init__(streams, **kwargs)
        self.dynamic = dynamic
        self.fractions = fractions

    def build(self, input_shape: Shape) -> None:
        """Adds the matrix and, if it is dynamic, the weights that compute the dynamic part."""
        rows, reads = self.streams * self.fractions, self.fractions
        # Coefficients are computed in float32 whatever the blocks compute in.
        options: dict[str, Any] = {"autocast": False}
        alpha = ByDepth(self._first_alpha, self.index)
        self.alpha = self.add_weight(shape=(rows, reads + rows), initializer=alpha, name="alpha", **options)
        self.beta = self.add_weight(shape=(rows,), initializer="ones", name="beta", **options)
        if not self.dynamic:
            return
        width = check_width(owner_of(self), input_shape, "from which weights are computed") // self.fractions
        small = keras.initializers.Constant(0.01)
        self.gain = self.add_weight(shape=(width,), initializer="ones", name="gain", **options)
        shape = (width, reads + rows)
        self.alpha_kernel = self.add_weight(shape=shape, initializer="zeros", name="alpha_kernel", **options)
        self.beta_kernel = self.add_weight(shape=(width, 1), initializer="zeros", name="beta_kernel", **options)
        self.alpha_scale = self.add_weight(shape=(), initializer=small, name="alpha_scale", **options)
        self.beta_scale = self.add_weight(shape=(), initializer=small, name="beta_scale", **options)

    def _first_alpha(self, index: int) -> np.ndarray:
        # Each fraction of the branch's input initially reads that fraction of one stream, a different one at each
        # depth.
        read = np.kron(self.own_stream(index)[:, None], np.eye(self.fractions))
        return np.concatenate([read, np.eye(self.streams * self.fractions)], axis=1)

    def weigh(self, x: Any) -> Coefficients:
        """Returns `Q = A_m^T`, `T = A_r^T` and `P = B`; `Q` has a row for each fraction if there are several."""
        alpha: Any = ops.cast(self.alpha, x.dtype)
        beta: Any = ops.cast(self.beta, x.dtype)
        if self.dynamic:
            normed = self._normalize(x)
            by_alpha: Any = ops.tanh(ops.matmul(normed, ops.cast(self.alpha_kernel, x.dtype)))
            by_beta: Any = ops.tanh(ops.matmul(normed, ops.cast(self.beta_kernel, x.dtype)))
            alpha = alpha + ops.cast(self.alpha_scale, x.dtype) * by_alpha
            beta = beta + ops.cast(self.beta_scale, x.dtype) * by_beta[..., 0]
        # Row i of A_r says where row i goes, row i of the transport where row i comes from.
        turned: Any = ops.swapaxes(alpha, -1, -2)
        read = turned[..., 0, :] if self.fractions == 1 else turned[..., : self.fractions, :]
        return Coefficients(read=read, transport=turned[..., self.fractions :, :], write=beta)

    def _normalize(self, x: Any) -> Any:
        centred = x - ops.mean(x, axis=-1, keepdims=True)
        variance: Any = ops.mean(ops.square(centred), axis=-1, keepdims=True)
        return centred * cast(Any, ops.rsqrt(variance + NORM_EPSILON)) * cast(Any, ops.cast(self.gain, x.dtype))


@register
class HyperConnections(MultiStream):
    """Hyper-Connections: `n` copies of the stream, which connections read, mix and write with learned weights.

    With the streams as the rows of `H`, a connection computes `H' = A_r^T H + B^T F(A_m^T H)`. At first `A_r = I`,
    `B = 1`, and `A_m` reads one stream, the connection's index in the whole stack modulo `n`: each stream is that of a
    plain stack, and the output, their sum, is `n` times it. A norm after the stack removes this factor; without one,
    divide by `n`.

    `dynamic` adds to each weight a term computed from its stream, token by token: `s tanh(N(H) W)`, with a layer norm
    `N` that has a gain and no shift, `W = 0` and `s = 0.01` at first, one `s` for `A_m` and `A_r` and one for `B`. A
    token is a position along all axes but the last. A connection has `n (n + 2)` weights, and `d (n + 3) + 2` more with
    `dynamic`.

    With `fractions=m` the last axis of each stream is split into `m` parts, which are mixed like streams; the branch
    still receives the whole width, and each part gets its part of the branch output. With `streams=1` these are
    Frac-Connections, which need no more memory than a plain stack.

    Args:
        streams: `n`, at least 1.
        dynamic: Whether the weights depend on the streams. False works with any data format.
        fractions: `m`, a divisor of the last axis.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.

    Example:
        >>> import keras
        >>> import keras_residual as kr
        >>> block = kr.Residual(keras.layers.Dense(8), norm="layer_norm")
        >>> kr.ResidualStack(block, depth=6, topology=kr.topologies.HyperConnections(streams=2)).topology.streams
        2

    Reference:
        Zhu et al., Hyper-Connections, 2024. https://arxiv.org/abs/2409.19606, eq. 1 to 14
        Zhu et al., Frac-Connections, 2025. https://arxiv.org/abs/2503.14125
    """

    def __init__(self, streams: int = 4, dynamic: bool = True, fractions: int = 1, **kwargs: Any) -> None:
        super().__init__(streams, **kwargs)
        self.dynamic = flag(owner_of(self), "dynamic", dynamic)
        self.fractions = whole_number(owner_of(self), "fractions", fractions)
        self.channel_axis = -1 if dynamic or self.fractions > 1 else None

    def check(self, depth: int, per_block: int, input_shape: Shape) -> None:
        """Raises if the length of the last axis is not known, or not divisible by `fractions`."""
        del depth, per_block
        if not self.dynamic and self.fractions == 1:
            return
        width = check_width(owner_of(self), input_shape, "for dynamic=True and for fractions")
        if width % self.fractions:
            rule = f"a divisor of {width}, the length of the input's last axis"
            raise bad_argument(owner_of(self), "fractions", rule, self.fractions)

    def link(self, place: Place) -> Link:
        """Returns a connection."""
        return HyperConnectionsLink(dynamic=self.dynamic, fractions=self.fractions, **self.arguments(place))
