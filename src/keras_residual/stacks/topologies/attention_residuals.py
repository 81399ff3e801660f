"""Attention residuals: what a connection gets is a softmax over what all those before it added."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_residual.residual.configured import Configured
from keras_residual.residual.context import DepthContext
from keras_residual.residual.serialization import register
from keras_residual.residual.shapes import Shape
from keras_residual.stacks.topologies.base import Coefficients, Link, Place, Rows, Topology, weighted_sum

EPSILON = 1e-6


@register
class DepthAttention(Configured):
    """Weights `softmax_i(w . rms_norm(v_i))` of the rows `v_i`, one set a token; uniform at first, since `w = 0`.

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
    """A connection that reads a softmax over the rows, and whose branch makes a new row.

    Args:
        first: Whether there is but one row, the stack's input, and so nothing to choose from.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.
    """

    def __init__(self, first: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first = first

    def build(self, input_shape: Shape) -> None:
        """Makes the attention."""
        if not self.first:
            self.attention = self._made("attention", DepthAttention(dtype=self.dtype_policy, name="attention"))
            self.attention.build(input_shape)

    def coefficients(self, rows: Rows, context: DepthContext) -> Any:
        """Returns the softmax as `Q`, a `T` that keeps all rows, and a `P` that makes a new one."""
        del context
        count = len(rows)
        kept = [[int(i == j) for j in range(count)] for i in range(count + 1)]
        read = [1] if self.first else self.attention(rows)
        return Coefficients(read=read, transport=kept, write=[0] * count + [1])


@register
class AttentionResiduals(Topology):
    """Attention over depth in place of sums: `h_l = sum_i a_il v_i` with `a_il = softmax_i(w_l . rms_norm(v_i))`.

    `v_0` is the stack's input and `v_l = F_l(h_l)` what each connection's branch makes of what it gets; the stack's
    output is a softmax like that over all of them, with a query of its own. Each connection, and not only each block,
    has a query, a vector of the width of the stream, and a norm; but for the first one, which gets `v_0`.

    The queries start at 0, so that at first everything is a plain mean, and not the sum of a plain stack. This is the
    paper's full form, which keeps all rows; that of blocks, which keeps sums of some, is not here.

    Reference:
        Kimi Team, Attention Residuals, 2026. https://arxiv.org/abs/2603.15031, section 3
    """

    fixed_shape = False
    channel_axis = -1

    def build(self, input_shape: Shape) -> None:
        """Makes the attention at the end."""
        self.attention = self._made("attention", DepthAttention(dtype=self.dtype_policy, name="attention"))
        self.attention.build(input_shape)

    def end(self, rows: Rows) -> Any:
        """Returns the softmax over all rows."""
        return weighted_sum(self.attention(rows), rows)

    def link(self, place: Place) -> Link:
        """Returns a link; that of the first connection has no weights."""
        return AttentionResidualLink(place.order == 0, name=place.link_name, dtype=self.dtype_policy)
