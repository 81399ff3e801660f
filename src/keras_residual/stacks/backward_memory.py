"""One call of a stack as a program: functions of tensors without side effects, for loops and for recomputation."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import keras
from keras import ops

from keras_residual import _backend
from keras_residual._errors import bad_argument
from keras_residual._keras import get_stateless_scope
from keras_residual.residual.configured import Untracked
from keras_residual.residual.shapes import sublayers
from keras_residual.stacks.blocks import Blocks
from keras_residual.stacks.cell import Cell, Contexts
from keras_residual.stacks.observation import Observation
from keras_residual.stacks.topologies import Rows
from keras_residual.stacks.topologies.reversible import ReversibleLink
from keras_residual.stacks.variables import is_trained

Remat = bool | str


@dataclass(frozen=True, slots=True)
class RematByScope:
    """The rematerialisation that a `keras.RematScope` requests: recompute blocks for inputs above some size.

    Args:
        above: Number of entries of the stack's input above which blocks are recomputed; None for never.
    """

    above: float | None = None

    def __call__(self, inputs: Any) -> Remat:
        """Returns the value of `remat` for an input."""
        size = math.prod(size or 1 for size in inputs.shape)
        return "full" if self.above is not None and size > self.above else False


def leave_remat_scope(stack: keras.Layer, layers: Sequence[keras.Layer]) -> RematByScope:
    """Takes over from the `keras.RematScope` in which a stack, or the layers of its blocks, were created.

    Keras would recompute the calls of layers together with their assignments to variables, which the program of a stack
    keeps apart. Activation functions assign nothing and are left to Keras.
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
        blocks: The blocks.
        contexts: The depth-dependent values of their connections.
        training: Whether the blocks act as in training.
        mask: Mask of a sequence, or None.
        observation: Records what the connections receive and add, or None.
        arguments: Further call arguments of the layers by name, the same for every block.
    """

    blocks: Blocks
    contexts: Contexts
    training: bool | None
    mask: Any
    observation: Observation | None
    arguments: Mapping[str, Any]
    has_losses: bool = False

    def run(self, rows: Rows, common: Mapping[str, Any], remat: Remat, *, reversibly: bool) -> tuple[Rows, Any]:
        """Assigns the new state of the blocks; returns the last rows and the sum of their losses, None without any.

        Args:
            rows: The first rows.
            common: What `tensors_by_block` returns.
            remat: Which activations the backward pass recomputes.
            reversibly: Whether the backward pass inverts the blocks, and no activations are stored.
        """
        blocks = self.blocks
        xs = blocks.trained_values(), blocks.others(self.contexts, common)
        if reversibly:
            rows, losses, updates = self._run_reversibly(rows, xs)
            measured = None
        else:
            link = next(iter(blocks.cells[0].links), None)
            reversible = isinstance(link, ReversibleLink)
            rows = link.enter(rows, undone=not remat) if reversible else rows
            rows, (losses, updates, measured) = self._run_forward(rows, xs, remat)
            rows = link.leave(rows) if reversible else rows
        blocks.assign(updates)
        if self.observation is not None:
            self.observation.seen = blocks.join(measured)
        return rows, blocks.total(losses) if self.has_losses else None

    def _block(self, rows: Rows, x: Any, index: int | None) -> tuple[Rows, tuple[Any, Any, Any]]:
        """Returns the rows after a block, and its loss, its new state and its measurements."""
        weights, others = x
        cell = self.blocks.cell(index)
        measured: list[Any] = []

        def watch(received: Any, added: Any) -> None:
            measured.append(dict(cast(Observation, self.observation).measure(received, added)))

        with values_for(cell.variables, self._values(cell, weights, others)) as scope:
            given = [scope.get_current_value(variable) for variable in cell.variables]
            rows = cell(
                rows,
                contexts=self.blocks.contexts_in(self.contexts, index, others),
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

    def _run_forward(self, rows: Rows, xs: Any, remat: Remat) -> tuple[Rows, Any]:
        """Returns the last rows, and the losses, new states and measurements of the blocks."""
        blocks = self.blocks
        if not remat:
            return blocks.loop(blocks.keep_activations(self._block), rows, xs)
        if remat == "sqrt" and blocks.depth > 3:
            return blocks.loop_in_groups(self._recompute_block, self._recompute, group_size(blocks.depth), rows, xs)
        return blocks.loop(self._recompute_block, rows, xs)

    def _recompute_block(self, rows: Any, x: Any, index: int | None) -> Any:
        return self._recompute(lambda rows, x: self._block(rows, x, index))(rows, x)

    def _recompute(self, function: Callable[..., Any]) -> Callable[..., Any]:
        held = [tensor for tensor in keras.tree.flatten(dict(self.arguments)) if ops.is_tensor(tensor)]
        return _backend.recompute(function, in_loop=self.blocks.in_loop, held=held)

    def _run_reversibly(self, rows: Rows, xs: Any) -> tuple[Rows, Any, Any]:
        """Returns the last rows, the losses and the new states; stores no activations for the gradient."""
        first = cast(ReversibleLink, self.blocks.cells[0].links[0])
        program = _backend.ReversiblePass(
            loop=self.blocks.loop, enter=first.enter, forward=self._forward, backward=self._backward, leave=first.leave
        )
        return _backend.reversible(program, rows, *xs)

    def _forward(self, state: Rows, weights: Any, others: Any, index: int | None) -> tuple[Rows, Any, Any]:
        state, (loss, updates, _) = self._block(state, (weights, others), index)
        return state, loss, updates

    def _backward(
        self, state: Rows, rows_bar: Rows, weights: Any, others: Any, loss_bar: Any, index: int | None
    ) -> tuple[Rows, Rows, Any]:
        cell = self.blocks.cell(index)
        contexts = self.blocks.contexts_in(self.contexts, index, others)
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
    """Returns the number of blocks in a group: a divisor of the length near its square root, or the rounded root.

    Of two divisors equally near, the smaller one is used, since the weights of one group at a time are held twice.
    """
    root = math.sqrt(length)
    divisors = [size for size in range(2, length) if length % size == 0 and root / 2 <= size <= 2 * root]
    return min(divisors, key=lambda size: (max(size / root, root / size), size), default=math.ceil(root))


def check_held(owner: str, arguments: Mapping[str, Any]) -> None:
    """Raises for call arguments that may need a gradient, which a stack of inverted blocks does not compute."""
    for name, value in arguments.items():
        tensors = [tensor for tensor in keras.tree.flatten(value) if ops.is_tensor(tensor)]
        if any(keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype)) for tensor in tensors):
            rule = "without floats in a reversible stack, which computes no gradient for other arguments of its calls"
            raise bad_argument(owner, name, rule, value, "Make the stack with remat='full'.")


def tensors_by_block(owner: str, depth: int, block_mask: Any, observation: Observation | None) -> dict[str, Any]:
    """Returns the block mask as `"active"` and the probe as `"probe"`, if given, with the blocks as leading axis.

    A block is active where both the caller and the observation leave it on.
    """
    found: dict[str, Any] = {}
    observed, probe = (None, None) if observation is None else (observation.block_mask, observation.probe)
    masks: list[Any] = [ops.convert_to_tensor(mask) for mask in (block_mask, observed) if mask is not None]
    for mask in masks:
        if len(mask.shape) not in (1, 2) or mask.shape[-1] != depth:
            rule = f"of shape ({depth},) or (batch, {depth})"
            raise bad_argument(owner, "block_mask", rule, tuple(mask.shape))
    if masks:
        masks = [ops.cast(mask, "bool") for mask in masks]
        active: Any = functools.reduce(ops.logical_and, masks)
        found["active"] = ops.transpose(active) if len(active.shape) == 2 else active
    if probe is not None:
        found["probe"] = tuple(probe) if isinstance(probe, (list, tuple)) else (probe,)
    return found


@contextmanager
def values_for(variables: Sequence[keras.Variable], values: Sequence[Any]) -> Iterator[keras.StatelessScope]:
    """Opens a scope in which the variables have these values, and all others the values they have outside.

    A plain `StatelessScope` ignores the scope around it: a variable mapped by the outer scope only would have its
    stored value inside, and its gradient would silently be zero.
    """
    outer = get_stateless_scope()
    scope = keras.StatelessScope(collect_losses=True)
    inherited = {} if outer is None else outer.state_mapping
    # Not by the argument of the scope, which checks shapes: a stacked variable has the shape of a slice only within it.
    scope.state_mapping = {**inherited, **{id(v): value for v, value in zip(variables, values, strict=True)}}
    before = dict(scope.state_mapping)
    own = {id(variable) for variable in variables}
    with scope:
        yield scope
    foreign = [key for key, value in scope.state_mapping.items() if key not in own and before.get(key) is not value]
    if foreign:
        raise ValueError(
            "A block of a stack assigns to a variable outside the block, which a scanned, rematerialised or "
            "reversible stack cannot pass on. Make the variable part of a layer of the block, or use "
            "execution='unrolled' and remat=False."
        )


def updates_in(
    scope: keras.StatelessScope, variables: Sequence[keras.Variable], given: Sequence[Any]
) -> dict[str, Any]:
    """Returns the values assigned to variables within a scope, by the index of the variable.

    Args:
        scope: The scope.
        variables: The variables.
        given: The value of each at the start of the scope.
    """
    pairs = zip(variables, given, strict=True)
    now = [(scope.get_current_value(variable), before) for variable, before in pairs]
    return {str(index): value for index, (value, before) in enumerate(now) if value is not before}
