"""What topologies of several equal streams share: they begin as copies of the input, and end in their sum."""

from __future__ import annotations

import functools
import operator
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from keras import ops

from keras_residual._arguments import owner_of, whole_number
from keras_residual._errors import bad_argument
from keras_residual._types import Shape
from keras_residual.residual.context import DepthContext
from keras_residual.residual.merges.base import widen
from keras_residual.stacks.topologies.base import Coefficients, Link, Place, Rows, Topology

NORM_EPSILON = 1e-6
"""Added to a mean square before its root. None of the papers says what it takes."""


class MultiStreamLink(Link):
    """A connection to several equal streams. Abstract.

    Args:
        streams: Number of streams.
        position: Index of the connection within its block.
        per_block: Number of connections in a block.
        index: Index of the block; None if one layer stands for all. Initial values depend on these three.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.
    """

    fractions = 1
    """Number of parts of a stream that have weights of their own."""

    def __init__(self, streams: int, *, position: int, per_block: int, index: int | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.streams = streams
        self.position = position
        self.per_block = per_block
        self.index = index

    def own_stream(self, index: int) -> np.ndarray:
        """Returns the unit vector `(streams,)` of the stream whose turn it is at this connection of block `index`."""
        return np.eye(self.streams)[(index * self.per_block + self.position) % self.streams]

    @abstractmethod
    def weigh(self, x: Any) -> Coefficients:
        """Returns `Q`, `T` and `P` from the streams in one float32 tensor, `(…, streams * fractions, width)`."""

    def coefficients(self, rows: Rows, context: DepthContext) -> Coefficients:
        """Returns `Q`, `T` and `P`; `Q` has a row for each fraction if there are several."""
        del context
        return self.weigh(self._join(rows))

    def connect(
        self, rows: Rows, branch: Callable[[Any], Any], context: DepthContext, training: bool | None = None
    ) -> Rows:
        """Returns the streams after one connection."""
        del context, training
        # All streams in one tensor, since stream by stream a compiler has some five times as much to do. In float32,
        # since in bfloat16 the weights of a row would sum to 1 within a hundredth only, and the stream would change by
        # that factor to the power of the depth.
        dtype, shape = rows[0].dtype, cast(Any, ops.shape(rows[0]))
        x = self._join(rows)
        coefficients = self.weigh(x)
        read = coefficients.read if self.fractions > 1 else ops.expand_dims(coefficients.read, -2)
        received = ops.reshape(_combine(read, x), shape)
        added = widen(branch(ops.cast(received, dtype)))
        # The last axis of channels-first maps may have no known length.
        parts = (self.fractions, cast(Any, ops.shape(x))[-1])
        added = ops.reshape(added, (*shape[:-1], 1, *parts))
        leading = cast(Any, ops.shape(coefficients.write))[:-1]
        write: Any = ops.reshape(coefficients.write, (*leading, self.streams, self.fractions, 1))
        carried = x if coefficients.transport is None else _combine(coefficients.transport, x)
        after = ops.reshape(carried, (*shape[:-1], self.streams, *parts)) + write * added
        after = ops.cast(ops.reshape(after, (*shape[:-1], self.streams, shape[-1])), dtype)
        return tuple(cast(Any, ops.unstack(after, self.streams, axis=-2)))

    def _join(self, rows: Rows) -> Any:
        stacked: Any = widen(ops.stack(rows, axis=-2))
        if self.fractions == 1:
            return stacked
        shape: Any = ops.shape(stacked)
        width = stacked.shape[-1] // self.fractions
        return ops.reshape(stacked, (*shape[:-2], self.streams * self.fractions, width))


def _combine(matrix: Any, x: Any) -> Any:
    """Returns `matrix @ x` as sums of products.

    On many accelerators a matrix product rounds its float32 factors, and would round the whole stream each time.
    """
    terms = [matrix[..., :, i : i + 1] * x[..., i : i + 1, :] for i in range(x.shape[-2])]
    return functools.reduce(operator.add, terms)


class MultiStream(Topology):
    """Several copies of the stream, whose sum is the output. Abstract.

    Args:
        streams: Number of streams, at least 1.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.
    """

    def __init__(self, streams: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.streams = whole_number(owner_of(self), "streams", streams, most=1000)

    def begin(self, x: Any) -> Rows:
        """Returns copies of the input."""
        return (x,) * self.streams

    def end(self, rows: Rows) -> Any:
        """Returns the sum of the streams."""
        total = widen(rows[0])
        for row in rows[1:]:
            total = total + widen(row)
        return ops.cast(total, rows[0].dtype)

    def arguments(self, place: Place) -> dict[str, Any]:
        """Returns the arguments that all links of this topology have in common."""
        return {
            "streams": self.streams,
            "position": place.position,
            "per_block": place.per_block,
            "index": place.index,
            # Not a name that counts up, so that the weights of two stacks of the same blocks have the same paths.
            "name": f"link_{place.position}",
            "dtype": self.dtype_policy,
        }


def check_width(owner: str, input_shape: Shape, reason: str) -> int:
    """Returns the length of the last axis; raises if it is not known."""
    width = input_shape[-1]
    if width is None:
        rule = f"a tensor whose last axis has a known length, {reason}"
        raise bad_argument(owner, "inputs", rule, input_shape)
    return int(width)


class ByDepth:
    """An initializer whose values depend on the index of the block.

    In a scanned stack one layer stands for all blocks: the stack asks for the values of each block with `at`.

    Args:
        values: Returns the initial value for the index of a block, from 0.
        index: Index of the block; None, if it is not known, gives the values of the first one.
    """

    def __init__(self, values: Callable[[int], np.ndarray], index: int | None) -> None:
        self.values = values
        self.index = index

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """Returns the initial value."""
        return self.at(self.index or 0)(shape, dtype)

    def at(self, index: int) -> Callable[..., Any]:
        """Returns the initializer of the block with this index.

        It has no method `at` itself, since stacks around this one do not matter to it.
        """
        values = self.values(index)

        def initializer(shape: Any, dtype: Any = None) -> Any:
            return ops.convert_to_tensor(np.reshape(values, shape), dtype=dtype)

        return initializer
