"""How the blocks of a stack are applied: in a loop or a scan, with or without recomputation, or reversibly."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import keras
from keras import ops

from keras_residual import _backend
from keras_residual.residual.configured import Untracked
from keras_residual.residual.context import DepthContext
from keras_residual.residual.shapes import sublayers
from keras_residual.stacks.cell import Cell
from keras_residual.stacks.observe import Observation
from keras_residual.stacks.state import is_float, updates_in, values_for
from keras_residual.stacks.topologies.base import Rows
from keras_residual.stacks.topologies.reversible import ReversibleLink

Remat = bool | str


@dataclass(frozen=True, slots=True)
class RematByScope:
    """What a `keras.RematScope` asks of a stack: that its blocks are recomputed, from some size on.

    Args:
        above: Number of entries of the stack's input above which they are; None for never.
    """

    above: float | None = None

    def __call__(self, inputs: Any) -> Remat:
        """Returns what `remat` is for an input."""
        size = math.prod(size or 1 for size in inputs.shape)
        return "full" if self.above is not None and size > self.above else False


def leave_remat_scope(stack: keras.Layer, layers: Sequence[keras.Layer]) -> RematByScope:
    """Takes the place of the `keras.RematScope` that a stack, or the layers of its blocks, were made in.

    Keras would recompute a layer's call with what it assigns to variables, which the blocks' programs keep out of
    that. Activation functions, which assign nothing, are left to it.
    """
    parts = [stack, *(part for layer in layers for part in sublayers(layer))]
    found = next((part._remat_mode for part in parts if part._remat_mode), None)
    if found is None:
        return RematByScope()
    mode = found.mode
    if mode == "list_of_layers":
        mode = "full" if {part.name for part in parts} & set(found.layer_names) else None
    if mode not in ("full", "larger_than"):
        return RematByScope()
    stack._remat_mode = None
    return RematByScope(0 if mode == "full" else found.output_size_threshold)


@dataclass
class StackProgram:
    """One call of a stack as functions of tensors, each without side effects.

    Args:
        cells: The blocks, or the one that stands for all where it is scanned.
        scanned: Whether that is so.
        contexts: Returns what the connections of a block are told, from its index and, in a scan, its part of `others`.
        training: Whether the blocks act as in training.
        mask: Mask of a sequence, or None.
        observation: Who watches, or None.
        arguments: What the calls of the blocks' layers take beside that, by name: the same for every block.
    """

    cells: Sequence[Cell]
    scanned: bool
    contexts: Callable[[int | None, Any], list[DepthContext]]
    training: bool | None
    mask: Any
    observation: Observation | None
    arguments: Mapping[str, Any]
    has_losses: bool = False

    def cell(self, index: int | None) -> Cell:
        """Returns the block of that index."""
        return self.cells[index or 0]

    @property
    def loop(self) -> Any:
        """How the blocks are applied."""
        return _backend.scan if self.scanned else _backend.unroll

    def block(self, rows: Rows, x: Any, index: int | None) -> tuple[Rows, tuple[Any, Any, Any]]:
        """Returns the rows after a block, its loss, its new state and what was measured."""
        weights, others = x
        cell = self.cell(index)
        measured: list[Any] = []

        def watch(received: Any, added: Any) -> None:
            measured.append(dict(cast(Observation, self.observation).measure(received, added)))

        with values_for(cell.variables, self._values(cell, weights, others)) as scope:
            given = [scope.get_current_value(variable) for variable in cell.variables]
            rows = cell(
                rows,
                contexts=self.contexts(index, others),
                training=self.training,
                sequence_mask=self.mask,
                watch=None if self.observation is None else watch,
                active=others.get("active"),
                held=Untracked(self.arguments),
            )
            updates = updates_in(scope, cell.variables, given)
        if "probe" in others:
            rows = tuple(row + ops.cast(p, row.dtype) for row, p in zip(rows, others["probe"], strict=True))
        seen = {name: ops.stack([one[name] for one in measured]) for name in (measured[0] if measured else ())}
        return rows, (self._loss(cell, scope), updates, seen)

    def run(self, rows: Rows, xs: Any, remat: Remat) -> tuple[Rows, Any]:
        """Returns the last rows, and what the blocks gave off."""
        length = len(self.cells) if not self.scanned else int(keras.tree.flatten(xs)[0].shape[0])
        if remat == "sqrt" and length > 3:
            return self._run_in_groups(rows, xs, length)
        if remat:
            return self.loop(self._recomputed(self.block), rows, xs)
        return self.loop(self._recomputed_where_cheap if self.scanned else self.block, rows, xs)

    def _recomputed(self, body: Any) -> Any:
        def again(carry: Any, x: Any, index: int | None) -> Any:
            return self._checkpoint(lambda carry, x: body(carry, x, index))(carry, x)

        return again

    def _checkpoint(self, function: Callable[..., Any]) -> Callable[..., Any]:
        held = [tensor for tensor in keras.tree.flatten(dict(self.arguments)) if keras.ops.is_tensor(tensor)]
        return _backend.checkpoint(function, in_loop=self.scanned, held=held)

    def _recomputed_where_cheap(self, rows: Any, x: Any, index: int | None) -> Any:
        return _backend.recompute_cheap(lambda rows, *x: self.block(rows, x, index))(rows, *x)

    def _run_in_groups(self, rows: Rows, xs: Any, length: int) -> tuple[Rows, Any]:
        """Keeps the rows between groups of blocks, and within one group at a time those between its blocks."""
        size = group_size(length)
        body = self._recomputed(self.block)
        if not self.scanned:
            parts = [tuple(x[start : start + size] for x in xs) for start in range(0, length, size)]
            given_off = []
            for number, part in enumerate(parts):
                group = self._checkpoint(functools.partial(_unroll_from, body, number * size))
                rows, ys = group(rows, part)
                given_off.append(ys)
            return rows, tuple([item for part in kind for item in part] for kind in zip(*given_off, strict=True))

        whole = length - length % size
        # A slice of the weights, and of their gradients, would be a copy.
        first = xs if whole == length else _map(lambda x: x[:whole], xs)
        groups = _map(lambda x: ops.reshape(x, (whole // size, size, *x.shape[1:])), first)
        rows, ys = _backend.scan(self._recomputed(lambda rows, x, _: _backend.scan(body, rows, x)), rows, groups)
        ys = _map(lambda y: ops.reshape(y, (whole, *y.shape[2:])), ys)
        if whole < length:
            rows, rest = _backend.scan(body, rows, _map(lambda x: x[whole:], xs))
            ys = keras.tree.map_structure(lambda *parts: ops.concatenate(parts), ys, rest)
        return rows, ys

    def run_reversibly(self, rows: Rows, xs: Any) -> tuple[Rows, Any]:
        """Returns the same as `run`, and keeps no activations for the gradient."""
        first = cast(ReversibleLink, self.cell(0).links[0])
        program = _backend.ReversiblePass(
            loop=self.loop, enter=first.enter, forward=self._forward, backward=self._backward, leave=first.leave
        )
        rows, losses, updates = _backend.reversible(program, rows, *xs)
        return rows, (losses, updates, {} if self.scanned else [{}] * len(self.cells))

    def _forward(self, state: Rows, weights: Any, others: Any, index: int | None) -> tuple[Rows, Any, Any]:
        state, (loss, updates, _) = self.block(state, (weights, others), index)
        return state, loss, updates

    def _backward(
        self, state: Rows, rows_bar: Rows, weights: Any, others: Any, loss_bar: Any, index: int | None
    ) -> tuple[Rows, Rows, Any]:
        cell = self.cell(index)
        contexts = self.contexts(index, others)
        total: Any = None
        for position in reversed(range(len(cell.connections))):
            link = cast(ReversibleLink, cell.links[position])

            def branch(received: Any, weights: Any, position: int = position) -> tuple[Any, Any]:
                with values_for(cell.variables, self._values(cell, weights, others)) as scope:
                    apply = cell.branch(
                        position, contexts[position], self.training, self.mask, arguments=self.arguments
                    )
                    added = apply(received)
                    return ops.cast(added, "float32"), self._loss(cell, scope)

            (added, _), pullback = _backend.vjp(branch, link.source(state, contexts[position]), weights)
            state = link.undo(state, added, contexts[position])
            rows_bar, added_bar = link.pull(rows_bar, contexts[position])
            received_bar, weights_bar = pullback((added_bar, loss_bar))
            rows_bar = link.receive(rows_bar, received_bar)
            total = weights_bar if total is None else keras.tree.map_structure(ops.add, total, weights_bar)
        return state, rows_bar, total

    def _values(self, cell: Cell, weights: Any, others: Any) -> list[Any]:
        trained, rest = iter(weights), iter(others["state"])
        return [next(trained) if is_trained(variable) else next(rest) for variable in cell.variables]

    def _loss(self, cell: Cell, scope: keras.StatelessScope) -> Any:
        if not scope.losses:
            return ops.zeros((), "float32")
        self.has_losses = True
        # Keras knows a loss by its `id`, which the next tensor may have once this one is gone.
        for part in sublayers(cell):
            part._loss_ids.clear()
        doubles = any(keras.backend.standardize_dtype(loss.dtype) == "float64" for loss in scope.losses)
        dtype = "float64" if doubles else "float32"
        return cast(Any, sum)(ops.cast(ops.sum(loss), dtype) for loss in scope.losses)


def group_size(length: int) -> int:
    """Returns the number of blocks in a group: a divisor of the length near its square root, or else the root itself.

    Of two divisors equally near the smaller is taken, since the weights of one group at a time are held twice.
    """
    root = math.sqrt(length)
    divisors = [size for size in range(2, length) if length % size == 0 and root / 2 <= size <= 2 * root]
    return min(divisors, key=lambda size: (max(size / root, root / size), size), default=math.ceil(root))


def is_trained(variable: keras.Variable) -> bool:
    """Returns whether the gradient of a variable is asked for; that of other state is not followed."""
    return variable.trainable and is_float(variable)


def _unroll_from(body: _backend.Body, start: int, rows: Any, part: Any) -> Any:
    return _backend.unroll(lambda rows, x, index: body(rows, x, start + cast(int, index)), rows, part)


def _map(function: Callable[[Any], Any], tree: Any) -> Any:
    return keras.tree.map_structure(function, tree)
