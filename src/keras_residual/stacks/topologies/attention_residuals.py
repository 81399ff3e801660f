"""Attention residuals: each connection receives a softmax-weighted mean of all earlier branch outputs."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_residual._types import Shape
from keras_residual.residual.configured import Configured
from keras_residual.residual.context import DepthContext
from keras_residual.residual.serialization import register
from keras_residual.stacks.topologies.base import Coefficients, Link, Place, Rows, Topology, weighted_sum

EPSILON = 1e-6


@register
class DepthAttention(Configured):
    """Weights `softmax_i(w . rms_norm(v_i))` of the rows `v_i` for each token; uniform at first, since `w = 0`.

    Call arguments:
        inputs: The rows, `n` tensors of one shape `(batch, …, channels)`.

    Output shape:
        `(batch, …, n)`, float32.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        """Adds the query `w` and the norm's gain, for the shape of one row."""
        shape = (input_shape[-1],)
        self.query = self.add_weight(shape=shape, initializer="zeros", name="query")
        self.gain = self.add_weight(shape=shape, initializer="ones", name="gain")

    def call(self, inputs: Rows) -> Any:
        """Returns the weights."""
        query, gain = (ops.cast(weight, "float32") for weight in (self.query, self.gain))
        rows = [ops.cast(row, "float32") for row in inputs]
        keys = [ops.rms_normalization(row, scale=gain, axis=-1, epsilon=EPSILON) for row in rows]
        return ops.softmax(ops.stack([ops.matmul(key, query) for key in keys], axis=-1), axis=-1)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """Returns None: weights have no mask."""
        return None


@register
class AttentionResidualLink(Link):
    """A connection that reads a softmax over the rows, and whose branch output becomes a new row.

    Args:
        first: Whether there is only one row, the stack's input, and so no attention.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.
    """

    def __init__(self, first: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first = first

    def build(self, input_shape: Shape) -> None:
        """Builds the attention."""
        if not self.first:
            self.attention = self._made("attention", DepthAttention(dtype=self.dtype_policy, name="attention"))
            self.attention.build(input_shape)

    def coefficients(self, rows: Rows, context: DepthContext) -> Coefficients:
        """Returns the softmax as `Q`, a `T` that keeps all rows, and a `P` that adds a new one."""
        del context
        count = len(rows)
        kept = [[int(i == j) for j in range(count)] for i in range(count + 1)]
        read = [1] if self.first else self.attention(rows)
        return Coefficients(read=read, transport=kept, write=[0] * count + [1])


@register
class AttentionResiduals(Topology):
    """Attention over depth in place of sums: `h_l = sum_i a_il v_i` with `a_il = softmax_i(w_l . rms_norm(v_i))`.

    `v_0` is the stack's input and `v_l = F_l(h_l)` the output of each branch; the output of the stack is such a softmax
    over all of them, with its own query. Each connection, not only each block, has a query, a vector of the width of
    the stream, and a norm, except for the first one, which receives `v_0`.

    The queries start at 0, so that at first everything is a plain mean instead of the sum of a plain stack. This is the
    full form of the paper, which keeps all rows; its block form, which keeps sums of some, is not implemented.

    Reference:
        Kimi Team, Attention Residuals, 2026. https://arxiv.org/abs/2603.15031, section 3
    """

    fixed_shape = False
    channel_axis = -1

    def build(self, input_shape: Shape) -> None:
        """Builds the attention at the end."""
        self.attention = self._made("attention", DepthAttention(dtype=self.dtype_policy, name="attention"))
        self.attention.build(input_shape)

    def end(self, rows: Rows) -> Any:
        """Returns the softmax over all rows."""
        return weighted_sum(self.attention(rows), rows)

    def link(self, place: Place) -> Link:
        """Returns a link; that of the first connection has no weights."""
        return AttentionResidualLink(place.order == 0, name=place.link_name, dtype=self.dtype_policy)
