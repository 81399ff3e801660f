"""The input of the stack, mixed into the stream before every block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_residual._arguments import number, owner_of
from keras_residual._errors import bad_argument
from keras_residual._types import Shape
from keras_residual.residual.context import DepthContext
from keras_residual.residual.serialization import register
from keras_residual.stacks.topologies.base import Coefficients, Link, Place, Rows, Topology


@register
class X0SkipLink(Link):
    """A connection to the streams `(x, x0)`: `m = l0 x + l1 x0`, `x' = m + F(m)`.

    Args:
        init: Initial values of `l0` and `l1`; None for a connection without them, `m = x`.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.
    """

    def __init__(self, init: Sequence[float] | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.init = None if init is None else list(init)

    def build(self, input_shape: Shape) -> None:
        """Adds the two factors."""
        del input_shape
        if self.init is not None:
            starts = dict(zip(("l0", "l1"), self.init, strict=True))
            self.factors = tuple(
                self.add_weight(shape=(), initializer=keras.initializers.Constant(start), name=name)
                for name, start in starts.items()
            )

    def coefficients(self, rows: Rows, context: DepthContext) -> Coefficients:
        """Returns `Q = [l0, l1]`, `T = [[l0, l1], [0, 1]]` and `P = [1, 0]`."""
        del rows, context
        mixed = (1, 0) if self.init is None else self.factors
        return Coefficients(read=mixed, transport=(mixed, (0, 1)), write=(1, 0))


@register
class X0Skip(Topology):
    """Adds the stack's input `x0` before every block: `m = l0 x + l1 x0`, and the block returns `m + F(m)`.

    `l0` and `l1` are two learnable factors per block, however many connections it has: in a block of attention and MLP
    only the first receives the sum, as in the source. A plain stack at first, with `init=(1, 0)`. Any data format.

    Args:
        init: Initial values of `l0` and `l1`, two finite numbers. nanochat has `(1.15, 0.2)`, falling to `(1.05, 0.05)`
            with depth.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.

    Reference:
        Jordan et al., modded-nanogpt, 2024, record of 2024-11-06. https://github.com/KellerJordan/modded-nanogpt
    """

    def __init__(self, init: Sequence[float] = (1.0, 0.0), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        rule = "two finite numbers, the starts of l0 and l1"
        if not isinstance(init, (list, tuple)) or len(init) != 2:
            raise bad_argument(owner_of(self), "init", rule, init)
        self.init = [number(owner_of(self), "init", value, rule) for value in init]

    def begin(self, x: Any) -> Rows:
        """Returns the input twice: as the stream, and to be mixed into it."""
        return x, x

    def link(self, place: Place) -> Link:
        """Returns a connection; the first one of a block has the factors."""
        init = self.init if place.position == 0 else None
        return X0SkipLink(init, name=f"link_{place.position}", dtype=self.dtype_policy)
