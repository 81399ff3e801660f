"""Reversible stacks: connections can be inverted, so that no activations are stored for the backward pass."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_residual._arguments import choice, number, owner_of
from keras_residual._errors import bad_argument
from keras_residual._types import Shape
from keras_residual.residual.context import DepthContext
from keras_residual.residual.serialization import register
from keras_residual.stacks.topologies.base import Link, Place, Rows, Topology

_LARGEST = 3.4e38
PRECISIONS = ("double", "single")
DRIFT_BOUND = 1e-3
"""Largest expected error of a gradient from rounding alone, relative to its maximum."""


class ReversibleLink(Link):
    """A connection that can be inverted, given what its branch added. Abstract.

    In the state, each stream is one float32 tensor (`precision="single"`), or the unevaluated sum of two (`"double"`),
    some 48 bits in all, so that adding and subtracting a term again leaves almost no error.
    """

    def __init__(self, precision: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.precision = precision

    @abstractmethod
    def source(self, state: Rows, context: DepthContext) -> Any:
        """Returns what the branch received, from the state after the connection."""

    @abstractmethod
    def undo(self, state: Rows, added: Any, context: DepthContext) -> Rows:
        """Returns the state before the connection, from the one after it and what the branch added."""

    @abstractmethod
    def pull(self, rows_bar: Rows, context: DepthContext) -> tuple[Rows, Any]:
        """Returns the cotangents of the rows before the connection and of what the branch added.

        The cotangents of the rows lack the part through the branch, which `receive` adds.
        """

    @abstractmethod
    def receive(self, rows_bar: Rows, received_bar: Any) -> Rows:
        """Returns the cotangents of the rows with that of the branch's input added."""

    def enter(self, rows: Rows, undone: bool = True) -> Rows:
        """Returns the state that holds the rows, with one part per stream if no connection will be undone."""
        rows = tuple(ops.cast(row, "float32") for row in rows)
        if self.precision == "single" or not undone:
            return rows
        return tuple(part for row in rows for part in (row, ops.zeros_like(row)))

    def leave(self, state: Rows) -> Rows:
        """Returns the rows that the state holds."""
        return tuple(value(stream) for stream in self.streams(state))

    def streams(self, state: Rows) -> list[Rows]:
        """Returns the two streams of the state, each of one part or two."""
        parts = len(state) // 2
        return [state[:parts], state[parts:]]


@register
class CouplingLink(ReversibleLink):
    """RevNet's coupling: the streams `(a, b)` become `(b, a + F(b))`."""

    def connect(
        self, rows: Rows, branch: Callable[[Any], Any], context: DepthContext, training: bool | None = None
    ) -> Rows:
        """Returns the state after the connection."""
        del context, training
        a, b = self.streams(rows)
        return (*b, *add_to(a, branch(value(b))))

    def source(self, state: Rows, context: DepthContext) -> Any:
        """Returns `b`."""
        del context
        return value(self.streams(state)[0])

    def undo(self, state: Rows, added: Any, context: DepthContext) -> Rows:
        """Returns `(a, b)`."""
        del context
        b, sum_ = self.streams(state)
        return (*add_to(sum_, -added), *b)

    def pull(self, rows_bar: Rows, context: DepthContext) -> tuple[Rows, Any]:
        """Returns the cotangents of `(a, b)` and of `F(b)`."""
        del context
        b_bar, sum_bar = rows_bar
        return (sum_bar, b_bar), sum_bar

    def receive(self, rows_bar: Rows, received_bar: Any) -> Rows:
        """Adds to the cotangent of `b`."""
        a_bar, b_bar = rows_bar
        return a_bar, b_bar + received_bar


@register
class MomentumLink(ReversibleLink):
    """The momentum step `v' = g v + (1 - g) F(x)`, `x' = x + v'`, with `u = v / g**l` in place of `v`.

    Then `u' = u + (1 - g) / g**(l + 1) F(x)` and `x' = x + g**(l + 1) u'`: both are sums, which can be inverted to the
    last bit, unlike a product with `v`.
    """

    def __init__(self, momentum: float, position: int, per_block: int, precision: str, **kwargs: Any) -> None:
        super().__init__(precision, **kwargs)
        self.momentum = momentum
        self.position = position
        self.per_block = per_block

    def power(self, context: DepthContext) -> Any:
        """Returns `g**(l + 1)` for the connection's index `l` in the stack."""
        order = context.index * self.per_block + self.position + 1
        if isinstance(order, int):
            return np.float32(self.momentum**order)
        exponent: Any = ops.cast(order, "float32")
        return ops.exp(exponent * math.log(self.momentum))

    def connect(
        self, rows: Rows, branch: Callable[[Any], Any], context: DepthContext, training: bool | None = None
    ) -> Rows:
        """Returns the state after the connection."""
        del training
        x, u = self.streams(rows)
        power = self.power(context)
        u = add_to(u, self._scale(branch(value(x)), power))
        return (*add_to(x, power * value(u)), *u)

    def _scale(self, added: Any, power: Any) -> Any:
        return ops.cast(added, "float32") * ((1 - self.momentum) / power)

    def source(self, state: Rows, context: DepthContext) -> Any:
        """Returns `x`."""
        x, u = self.streams(state)
        return value(add_to(x, -(self.power(context) * value(u))))

    def undo(self, state: Rows, added: Any, context: DepthContext) -> Rows:
        """Returns `(x, u)`."""
        x, u = self.streams(state)
        power = self.power(context)
        return (*add_to(x, -(power * value(u))), *add_to(u, -self._scale(added, power)))

    def pull(self, rows_bar: Rows, context: DepthContext) -> tuple[Rows, Any]:
        """Returns the cotangents of `(x, u)` and of `F(x)`."""
        x_bar, u_bar = rows_bar
        power = self.power(context)
        u_bar = u_bar + power * x_bar
        return (x_bar, u_bar), ((1 - self.momentum) / power) * u_bar

    def receive(self, rows_bar: Rows, received_bar: Any) -> Rows:
        """Adds to the cotangent of `x`."""
        x_bar, u_bar = rows_bar
        return x_bar + received_bar, u_bar


class ReversibleTopology(Topology):
    """A topology of reversible links. Abstract."""

    def __init__(self, precision: str = "double", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.precision = choice(owner_of(self), "precision", precision, PRECISIONS)


@register
class Reversible(ReversibleTopology):
    """Two streams that the connections add to in turn, as in RevNet: `(a, b)` becomes `(b, a + F(b))`.

    Args:
        split: `"copy"` makes both streams copies of the input and returns their mean (Reformer): blocks are as in a
            plain stack. `"channels"` gives each stream one half of the channels (RevNet): blocks have half the width.
        precision: `"double"` stores each stream as the sum of two float32 tensors, which removes the drift of the
            recomputed activations at almost no cost; `"single"` as one.

    Reference:
        Gomez et al., The Reversible Residual Network, 2017. https://arxiv.org/abs/1707.04585, eq. 6 and 7
        Kitaev et al., Reformer, 2020. https://arxiv.org/abs/2001.04451, section 3
    """

    def __init__(self, split: str = "copy", precision: str = "double", **kwargs: Any) -> None:
        super().__init__(precision, **kwargs)
        self.split = choice(owner_of(self), "split", split, ("copy", "channels"))
        self.channel_axis = -1 if self.split == "channels" else None

    def check(self, depth: int, per_block: int, input_shape: Shape) -> None:
        """Raises if the channels cannot be halved."""
        del depth, per_block
        channels = input_shape[-1]
        if self.split == "channels" and (channels is None or channels % 2):
            rule = "an input with an even number of channels in its last axis, for split='channels'"
            raise bad_argument(owner_of(self), "inputs", rule, input_shape)

    def stream_shape(self, input_shape: Shape) -> Shape:
        """Returns the shape of one stream."""
        if self.split == "copy":
            return input_shape
        return (*input_shape[:-1], int(input_shape[-1] or 0) // 2)

    def begin(self, x: Any) -> Rows:
        """Returns two copies or the two halves of the input."""
        if self.split == "copy":
            return x, x
        half = x.shape[-1] // 2
        return x[..., :half], x[..., half:]

    def end(self, rows: Rows) -> Any:
        """Returns the mean of the streams, or the halves concatenated."""
        if self.split == "copy":
            return (rows[0] + rows[1]) / 2
        return ops.concatenate(rows, axis=-1)

    def link(self, place: Place) -> Link:
        """Returns a coupling."""
        return CouplingLink(self.precision, name=place.link_name, dtype=self.dtype_policy)


@register
class Momentum(ReversibleTopology):
    """A stream and its velocity, as in Momentum ResNets: `v' = g v + (1 - g) F(x)`, `x' = x + v'`, `v = 0` at first.

    Args:
        momentum: `g` in `(0, 1)`. Inverting a block divides by it, so that rounding errors grow by `g ** -depth`: a
            stack so deep that this alone would exceed a thousandth of the gradient is refused. The branches may
            amplify errors further.
        precision: As in `Reversible`.

    Reference:
        Sander et al., Momentum Residual Neural Networks, 2021. https://arxiv.org/abs/2102.07870, eq. 3 and 4
    """

    def __init__(self, momentum: float = 0.99, precision: str = "double", **kwargs: Any) -> None:
        super().__init__(precision, **kwargs)
        self.momentum = number(owner_of(self), "momentum", momentum, "a number in (0, 1)", lambda g: 0 < g < 1)

    def check(self, depth: int, per_block: int, input_shape: Shape) -> None:
        """Raises if rounding would dominate the gradient."""
        del input_shape
        connections = depth * per_block
        # A recomputed branch differs in its last bit; with a single float32 part, so does the stream.
        rounding = 2.0**-24 * (1.0 if self.precision == "single" else 1 - self.momentum)
        drift = rounding * self.momentum**-connections
        if drift > DRIFT_BOUND:
            rule = f"a number whose power {-connections} is no more than {DRIFT_BOUND / rounding:.2g}"
            way_out = (
                f"Inverting {connections} connections multiplies rounding errors by {self.momentum**-connections:.1e}, "
                f"so that the relative error of the gradient is {drift:.1e}. Use a momentum nearer to 1, "
                "topology='reversible', or another topology with remat='sqrt'."
            )
            raise bad_argument(owner_of(self), "momentum", rule, self.momentum, way_out)

    def begin(self, x: Any) -> Rows:
        """Returns the input, and a velocity of 0."""
        return x, ops.zeros_like(x)

    def link(self, place: Place) -> Link:
        """Returns a step."""
        where = (place.position, place.per_block)
        return MomentumLink(self.momentum, *where, self.precision, name=place.link_name, dtype=self.dtype_policy)


# --- Numbers of one or two float32 parts: the value is their sum, the second part the rounding of the first -----------


def value(stream: Rows) -> Any:
    """Returns the stream as one tensor."""
    return stream[0]


def add_to(stream: Rows, term: Any) -> Rows:
    """Returns the stream plus a tensor of one part."""
    term = ops.cast(term, "float32")
    if len(stream) == 1:
        return (stream[0] + term,)
    # `minimum` keeps a product from being fused with the sum: unrounded, it would make the error term wrong.
    high, error = _two_sum(stream[0], ops.minimum(term, _LARGEST))
    low = stream[1] + error
    total = high + low
    return total, low - (total - high)


def _two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    """Returns the rounded sum and its rounding error, exactly (Knuth, TAOCP 2, 4.2.2, theorem B)."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)
