"""Value residuals: the values of every attention layer are mixed with those of the first one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import keras
from keras import ops

from keras_residual._arguments import flag, number, owner_of
from keras_residual._errors import bad_argument
from keras_residual._types import Shape
from keras_residual.layers.value_attention import ValueResidualAttention
from keras_residual.residual.context import DepthContext
from keras_residual.residual.serialization import register
from keras_residual.residual.shapes import sublayers
from keras_residual.stacks.topologies.base import Coefficients, Link, Place, Rows, Topology

WAY_OUT = (
    "Make the branch of one connection keras_residual.layers.value_attention.ValueResidualAttention(num_heads, "
    "key_dim), or a layer that has one in it."
)


@register
class ValueResidualLink(Link):
    """A plain connection that mixes the values of the attention layer in its branch with the first values.

    The rows are the stream and the first values. `attach` sets the attention layer; without one, this is a plain
    connection.

    Args:
        init: Initial value of `lam`.
        learnable: Whether `lam` is a weight.
        publishes: Whether the first values come from this connection of block 0.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.
    """

    def __init__(self, init: float, learnable: bool, publishes: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.init = init
        self.learnable = learnable
        self.publishes = publishes
        self._attention: Callable[[], ValueResidualAttention] | None = None

    def attach(self, attention: ValueResidualAttention) -> None:
        """Sets the attention layer, before the link is built."""
        # In a function, so that Keras does not track the layer of the connection as one of the link.
        self._attention = lambda: attention

    def build(self, input_shape: Shape) -> None:
        """Adds `lam`."""
        del input_shape
        if self._attention is not None and self.learnable:
            self.lam = self.add_weight(shape=(), initializer=keras.initializers.Constant(self.init), name="lam")

    def coefficients(self, rows: Rows, context: DepthContext) -> Coefficients:
        """Returns the coefficients of a plain connection on the stream."""
        del rows, context
        return Coefficients(read=[1, 0], transport=None, write=[1, 0])

    def connect(
        self, rows: Rows, branch: Callable[[Any], Any], context: DepthContext, training: bool | None = None
    ) -> Rows:
        """Returns the stream after the connection, and the first values."""
        if self._attention is None:
            return super().connect(rows, branch, context, training)
        first = rows[1]
        found: list[Any] = []

        def mix(values: Any) -> Any:
            v1 = ops.cast(values, first.dtype)
            if not self.publishes:
                v1 = first
            elif isinstance(context.index, int):
                v1 = v1 if context.index == 0 else first
            else:
                v1 = ops.where(context.index == 0, v1, first)
            found.append(v1)
            lam = ops.cast(self.lam, values.dtype) if self.learnable else self.init
            # (1 - lam) V + lam V_1, in a form that leaves the values of the first block exactly as they are.
            return values + lam * (ops.cast(v1, values.dtype) - values)

        with self._attention().mixing_values(mix):
            x, _ = super().connect(rows, branch, context, training)
        return x, found[0]


@register
class ValueResidual(Topology):
    """A plain stack in whose attention layers the values are `V_l <- (1 - lam) V_l + lam V_1`.

    `V_1` are the values of the first attention layer, before mixing. Each layer has its own `lam`; with `lam = 0` the
    stack is plain. The attention layers must be `ValueResidualAttention`s, at most one per connection, anywhere in its
    branch, all with the same number of heads and the same size of values. A connection without one is plain.

    Args:
        init: `lam`, or its initial value if it is learnable; a finite number.
        learnable: Whether each `lam` is a weight, a single number. The plain ResFormer of the paper has 0.5 throughout.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.

    Raises:
        ValueError: If the first block has no `ValueResidualAttention`, a connection has several of them, or they differ
            in size.

    Reference:
        Zhou et al., Value Residual Learning, 2024. https://arxiv.org/abs/2410.17897, section 3
    """

    def __init__(self, init: float = 0.5, learnable: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.init = number(owner_of(self), "init", init, "a finite number")
        self.learnable = flag(owner_of(self), "learnable", learnable)
        # The first attention layer: the shape and dtype of its values, and its position in the block.
        self._heads = self._size = 0
        self._values_dtype: str | None = None
        self._publisher = -1

    def link(self, place: Place) -> Link:
        """Returns a link to the attention layer of the connection, if it has one."""
        first_block = place.index in (None, 0)
        if first_block and place.position == 0:
            self._publisher = -1
        attention = self._attention_of(place)
        if attention is not None and self._publisher < 0:
            self._publisher = place.position
            self._heads, self._size = attention.value_shape
            self._values_dtype = attention.compute_dtype
        if first_block and self._publisher < 0 and place.position == place.per_block - 1:
            rule = "a block that has a ValueResidualAttention, of which the others get the first values"
            raise bad_argument(owner_of(self), "block", rule, place.connection.name, WAY_OUT)
        publishes = attention is not None and place.position == self._publisher
        link = ValueResidualLink(self.init, self.learnable, publishes, name=place.link_name, dtype=self.dtype_policy)
        if attention is not None:
            if attention.value_shape != (self._heads, self._size):
                rule = f"{self._heads} with values of {self._size} channels, as in the first attention layer"
                owner = owner_of(attention)
                raise bad_argument(owner, "num_heads", rule, attention.value_shape, "Pass value_dim and num_heads.")
            link.attach(attention)
        return link

    def _attention_of(self, place: Place) -> Any:
        found = [part for part in sublayers(place.connection) if isinstance(part, ValueResidualAttention)]
        if len(found) > 1:
            rule = "a branch with one ValueResidualAttention"
            value = [part.name for part in found]
            way_out = "Put each in a Residual of its own, and pass the stack a list of these as its block."
            raise bad_argument(owner_of(place.connection), "branch", rule, value, way_out)
        return found[0] if found else None

    def begin(self, x: Any) -> Rows:
        """Returns the input, and zeros that the first block replaces by its values."""
        shape: Any = ops.shape(x)
        return x, ops.zeros((*shape[:-1], self._heads, self._size), cast(Any, self._values_dtype))
