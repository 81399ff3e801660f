"""Applying blocks one after another, by a loop or as a reversible stack: what the backends have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import keras

from keras_residual._types import Tensor, Tree

Body = Callable[[Any, Any, int | None], tuple[Any, tuple[Any, ...]]]
"""From the carry, a block's own inputs (a tuple) and its index, to the next carry and a tuple of outputs.

The index is None where one body, compiled once, serves every block.
"""


class Loop(Protocol):
    """Applies a body once a block.

    Each entry of the tuple `xs`, and of the second result, has a part for each block: it is a list of structures, or
    one structure of tensors with a leading axis.
    """

    def __call__(self, body: Body, carry: Tree, xs: Tree, *, reverse: bool = False) -> tuple[Any, Any]:
        """Returns the last carry, and the outputs of the blocks."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ReversiblePass:
    """A stack whose backward pass recomputes each block's input from its output.

    Args:
        loop: How the blocks are applied.
        enter: From the rows to the state, which may hold them in higher precision.
        forward: `(state, weights, others, index) -> (state, loss, updates)` of a block; `loss` is a scalar.
        backward: `(state, rows_bar, weights, others, loss_bar, index) -> (state, rows_bar, weights_bar)`: from the
            state after a block and the cotangents of the rows there to those before it.
        leave: From the state to the rows.
    """

    loop: Loop
    enter: Callable[[Any], Any]
    forward: Callable[[Any, Any, Any, int | None], tuple[Any, Any, Any]]
    backward: Callable[[Any, Any, Any, Any, Any, int | None], tuple[Any, Any, Any]]
    leave: Callable[[Any], Any]

    def run(self, rows: Tree, weights: Tree, others: Tree) -> tuple[Any, Any, Any]:
        """Returns the last state, the losses and the updates of each block."""

        def body(state: Tree, x: Tensor, index: int | None) -> tuple[Any, tuple[Any, Any]]:
            weights, others = x
            state, loss, updates = self.forward(state, weights, others, index)
            return state, (loss, updates)

        state, (losses, updates) = self.loop(body, self.enter(rows), (weights, others))
        return state, losses, updates

    def run_backward(
        self, state: Tree, rows_bar: Tree, weights: Tree, others: Tree, losses_bar: Tree
    ) -> tuple[Any, Any]:
        """Returns the cotangents of the first rows and of the weights, given those of the last rows and the losses."""

        def body(carry: Tree, x: Tensor, index: int | None) -> tuple[Any, tuple[Any]]:
            (state, rows_bar), (weights, others, loss_bar) = carry, x
            state, rows_bar, weights_bar = self.backward(state, rows_bar, weights, others, loss_bar, index)
            return (state, rows_bar), (weights_bar,)

        carried = (state, rows_bar)
        (_, rows_bar), (weights_bar,) = self.loop(body, carried, (weights, others, losses_bar), reverse=True)
        return rows_bar, weights_bar


def unroll(body: Body, carry: Tree, xs: Tree, *, reverse: bool = False) -> tuple[Any, Any]:
    """Runs `body` over lists, one entry a block."""
    parts = list(zip(*xs, strict=True))
    order = range(len(parts))
    ys: list[Any] = [None] * len(parts)
    for index in reversed(order) if reverse else order:
        carry, ys[index] = body(carry, parts[index], index)
    return carry, tuple(list(part) for part in zip(*ys, strict=True))


def slices(xs: Tree) -> tuple[list[Any], ...]:
    """Returns for each entry of `xs` the list of what it holds for each block: tensors cut along their leading axis."""
    length = int(keras.tree.flatten(xs)[0].shape[0])
    return tuple(_cut(x, length) for x in xs)


def stacked(ys: Tree) -> Any:
    """Returns each entry of `ys`, a list of structures of tensors, as one structure with a leading axis."""
    return tuple(keras.tree.map_structure(lambda *parts: keras.ops.stack(parts), *y) for y in ys)


def _cut(x: Tensor, length: int) -> list[Any]:
    leaves: list[Any] = [keras.ops.unstack(leaf, length, axis=0) for leaf in keras.tree.flatten(x)]
    return [keras.tree.pack_sequence_as(x, [leaf[i] for leaf in leaves]) for i in range(length)]
