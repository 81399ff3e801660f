"""ResiDual: a post-norm and a pre-norm stream side by side."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_residual._arguments import axis_in_rank, axis_index, owner_of
from keras_residual._errors import bad_argument
from keras_residual._types import Shape
from keras_residual.residual.arguments import check_name_or_layer
from keras_residual.residual.context import DepthContext
from keras_residual.residual.norms import NORMS, make_norm
from keras_residual.residual.serialization import register
from keras_residual.stacks.topologies.base import Coefficients, Link, Place, Rows, Topology


@register
class ResidualDualLink(Link):
    """A connection to the streams `(a, b)`: `a' = N(a + F(a))`, `b' = b + F(a)`.

    Args:
        norm: `N`, a name or a layer, which is copied.
        axis: The channel axis.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.
    """

    def __init__(self, norm: str | keras.Layer, axis: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norm = norm
        self.axis = axis

    def build(self, input_shape: Shape) -> None:
        """Builds the norm."""
        self.post_norm = self._made("post_norm", _norm(self, "post_norm", input_shape))
        self.post_norm.build(input_shape)

    def coefficients(self, rows: Rows, context: DepthContext) -> Coefficients:
        """Returns `Q = [1, 0]`, `T = I` and `P = [1, 1]`."""
        del rows, context
        return Coefficients(read=(1, 0), transport=None, write=(1, 1))

    def finish(self, rows: Rows) -> Rows:
        """Applies the norm to `a`."""
        a, b = rows
        return ops.cast(self.post_norm(a), b.dtype), b


@register
class ResidualDual(Topology):
    """ResiDual: a post-norm stream that the branches read, and a second stream that no norm scales down.

    From `a = b = x`, a connection computes `a' = N(a + F(a))` and `b' = b + F(a)`; the output is `a + N(b)`. No setting
    makes it a plain stack. Any data format, by `axis`.

    Args:
        norm: `N`: a name that `Residual(norm=…)` takes, or a norm layer; each connection and the end have a copy.
        axis: The channel axis: -1, or 1 for `channels_first`.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.

    Reference:
        Xie et al., ResiDual: Transformer with Dual Residual Connections, 2023. https://arxiv.org/abs/2304.14802
    """

    def __init__(self, norm: str | keras.Layer = "layer_norm", axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_name_or_layer(owner_of(self), "norm", norm, NORMS)
        self.norm = norm
        self.axis = self.channel_axis = axis_index(owner_of(self), "axis", axis)

    def build(self, input_shape: Shape) -> None:
        """Builds the norm at the end."""
        self.end_norm = self._made("end_norm", _norm(self, "end_norm", input_shape))
        self.end_norm.build(input_shape)

    def begin(self, x: Any) -> Rows:
        """Returns the input twice."""
        return x, x

    def end(self, rows: Rows) -> Any:
        """Returns `a + N(b)`."""
        a, b = rows
        return a + ops.cast(self.end_norm(b), a.dtype)

    def link(self, place: Place) -> Link:
        """Returns a connection with a norm of its own."""
        return ResidualDualLink(self.norm, self.axis, name=f"link_{place.position}", dtype=self.dtype_policy)


def _norm(owner: Any, name: str, shape: Shape) -> keras.Layer:
    channels = shape[axis_in_rank(owner_of(owner), owner.axis, len(shape))]
    if channels is None:
        raise bad_argument(owner_of(owner), "inputs", "a tensor with a known number of channels", shape)
    return make_norm(owner.norm, channels=channels, axis=owner.axis, name=name, dtype=owner.dtype_policy)
