"""The interface of topologies: streams that each connection reads, transports and writes to.

With the streams as the rows of `X`, the branch `F` and the coefficients `Q`, `T` and `P`, one connection computes

    X' = finish(T X + P ⊗ F(Q X))
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_residual._types import Shape
from keras_residual.residual.configured import Configured
from keras_residual.residual.context import DepthContext

Rows = tuple[Any, ...]
"""The streams, each a tensor of the shape of the stack's input unless its topology says otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """The position of a connection in a stack.

    Args:
        position: Index of the connection within its block, from 0.
        per_block: Number of connections in a block.
        depth: Number of blocks.
        index: Index of the block from 0; None in a scanned stack, where one layer stands for all blocks.
        connection: The residual connection itself.
    """

    position: int
    per_block: int
    depth: int
    index: int | None
    connection: keras.layers.Layer

    @property
    def order(self) -> int:
        """Index of the connection in the whole stack; raises if the index of the block is not known."""
        if self.index is None:
            raise ValueError("A scanned stack has one body for every index.")
        return self.index * self.per_block + self.position

    @property
    def link_name(self) -> str:
        """Name for the link, the same in every block and for every execution of the stack."""
        return f"link_{self.position}"

    @property
    def connections(self) -> int:
        """Number of connections in the whole stack."""
        return self.depth * self.per_block


@dataclass(frozen=True, slots=True)
class Coefficients:
    """The weights of the rows, each a number, a tensor, or None.

    Args:
        read: `Q`: one weight per row, in a sequence or a tensor whose last axis is the rows.
        transport: `T`: a square matrix in nested sequences, or a tensor whose last two axes are (new row, old row);
            None for the identity.
        write: `P`: one weight per row, like `read`.

    A tensor with more axes has one set of weights per token: its leading axes are all axes of the stream but the last.
    """

    read: Any
    transport: Any
    write: Any


class Link(Configured):
    """How one connection reads the streams and writes back to them. It is built for the shape of a stream.

    Most links only define `coefficients`; others override a part.
    """

    def coefficients(self, rows: Rows, context: DepthContext) -> Coefficients:
        """Returns `Q`, `T` and `P`, which may depend on the rows."""
        raise NotImplementedError

    def read(self, rows: Rows, coefficients: Coefficients) -> Any:
        """Returns `Q X`, what the branch receives."""
        return weighted_sum(coefficients.read, rows)

    def transport(self, rows: Rows, coefficients: Coefficients) -> Rows:
        """Returns `T X`, the rows carried on without the branch; None for a row of zeros."""
        return mix(coefficients.transport, rows)

    def write(self, added: Any, coefficients: Coefficients) -> Rows:
        """Returns `P ⊗ added`, what the branch adds to each row; None for a row that it does not change."""
        weights = coefficients.write
        count = weights.shape[-1] if hasattr(weights, "shape") else len(weights)
        return tuple(scale(_entry(weights, i), added) for i in range(count))

    def finish(self, rows: Rows) -> Rows:
        """Returns the rows after whatever follows the sum, such as a norm."""
        return rows

    def connect(
        self, rows: Rows, branch: Callable[[Any], Any], context: DepthContext, training: bool | None = None
    ) -> Rows:
        """Returns the rows after one connection, whose branch is the function `branch`."""
        del training
        coefficients = self.coefficients(rows, context)
        added = branch(self.read(rows, coefficients))
        carried = self.transport(rows, coefficients)
        written = self.write(added, coefficients)
        return self.finish(tuple(_sum(rows[0], *parts) for parts in zip(carried, written, strict=True)))


class Topology(Configured):
    """How the streams of a stack begin and end, and how connections are linked to them.

    It is built for the shape of the stack's input. Its own weights are for the beginning and the end; each link has the
    weights of its connection.
    """

    fixed_shape = True
    """Whether rows have the same shapes and links the same weights at every depth, as a scan requires."""

    channel_axis: int | None = None
    """The axis that the topology treats as channels; None if it treats all axes alike."""

    @abstractmethod
    def link(self, place: Place) -> Link:
        """Returns a new link for the connection at `place`."""

    def stream_shape(self, input_shape: Shape) -> Shape:
        """Returns the shape of one row, which connections and links are built for."""
        return input_shape

    def begin(self, x: Any) -> Rows:
        """Returns the rows that the first connection receives."""
        return (x,)

    def end(self, rows: Rows) -> Any:
        """Returns the stack's output."""
        return rows[0]

    def check(self, depth: int, per_block: int, input_shape: Shape) -> None:
        """Raises a ValueError if the topology does not support such a stack."""


def scale(weight: Any, tensor: Any) -> Any:
    """Returns `weight * tensor`; for a plain number, None if it is 0 and the tensor itself if it is 1.

    A tensor of weights has one per token, and is broadcast along the last axis of the stream.
    """
    if isinstance(weight, (int, float)):
        return None if weight == 0 else tensor if weight == 1 else tensor * weight
    weight = ops.cast(weight, tensor.dtype)
    return tensor * (ops.expand_dims(weight, -1) if len(weight.shape) else weight)


def weighted_sum(weights: Any, rows: Rows) -> Any:
    """Returns the weighted sum of the rows; see `Coefficients`."""
    return _sum(rows[0], *_terms(weights, rows))


def mix(matrix: Any, rows: Rows) -> Rows:
    """Returns `matrix @ rows`, with None for a row of zeros; the rows themselves if the matrix is None."""
    if matrix is None:
        return rows
    if hasattr(matrix, "shape"):
        return tuple(weighted_sum(matrix[..., i, :], rows) for i in range(matrix.shape[-2]))
    found = [_terms(weights, rows) for weights in matrix]
    return tuple(_sum(rows[0], *terms) if terms else None for terms in found)


def _terms(weights: Any, rows: Rows) -> list[Any]:
    terms = [scale(_entry(weights, i), row) for i, row in enumerate(rows)]
    return [term for term in terms if term is not None]


def _sum(like: Any, *terms: Any) -> Any:
    """Returns the sum of the terms that are not None; zeros like `like` if there are none."""
    present = [term for term in terms if term is not None]
    if not present:
        return ops.zeros_like(like)
    total = present[0]
    for term in present[1:]:
        total = total + term
    return total


def _entry(weights: Any, index: int) -> Any:
    return weights[..., index] if hasattr(weights, "shape") else weights[index]
