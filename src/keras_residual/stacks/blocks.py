"""The blocks of a stack, held in one of two ways behind one interface.

`SeparateBlocks` has a layer for each block, which a loop in Python calls; `StackedBlocks` has one layer that stands for
all of them, with weights that are stacked along a leading axis, which a scan calls.
"""

from __future__ import annotations

import functools
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

import keras
import numpy as np
from keras import ops

from keras_residual import _backend
from keras_residual._backend import Body
from keras_residual._errors import bad_argument, unknown_name
from keras_residual._keras import get_stateless_scope
from keras_residual._types import Shape
from keras_residual.residual.configured import Configured
from keras_residual.residual.shapes import keep_lora_alpha, sublayers
from keras_residual.stacks.cell import Cell, Contexts
from keras_residual.stacks.depth_rules import DepthPlan
from keras_residual.stacks.initial_values import defer_drawing
from keras_residual.stacks.topologies import Rows
from keras_residual.stacks.variables import (
    give_own_generators,
    give_own_paths,
    is_float,
    is_trained,
    refuse_by_block,
    set_places,
    spread_initial_values,
    spread_seeds,
    stack_variables,
)

Recompute = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Wraps a function so that only its arguments are stored for the backward pass."""


class Blocks(ABC):
    """The blocks of one stack. No layer, so that Keras does not look into it: the stack itself saves and counts.

    Args:
        owner: The stack, for messages.
        depth: Number of blocks.
        make: Returns the block of an index, or, for None, one that stands for every block.
        alike: Whether all blocks are copies of one, which draw from the same seeds as a stack executed in the other
            way.
    """

    in_loop: ClassVar[bool]
    """Whether blocks are called only in the body of a compiled loop, which their tensors do not outlive."""

    def __init__(self, owner: str, depth: int, make: Callable[[int | None], Cell], *, alike: bool) -> None:
        self.owner = owner
        self.depth = depth
        self.alike = alike
        self.cells = [make(index) for index in self._draw_once(self._indices())]
        """The layers: one a block, or the one that stands for all."""

    @abstractmethod
    def _indices(self) -> Sequence[int | None]:
        """Returns the indices of the layers, for `make`."""

    @abstractmethod
    def cell(self, index: int | None) -> Cell:
        """Returns the layer of the block with this index; within a loop over stacked blocks the index is None."""

    # --- Built -------------------------------------------------------------------------------------------------------

    def build(self, stream_shape: Shape, argument_shapes: Mapping[str, Any], plan: DepthPlan | None) -> None:
        """Builds the layers, and gives each block initial values of its own, the same in either way of holding them."""
        with defer_drawing():
            for cell in self._draw_once(self.cells):
                cell.build(stream_shape, argument_shapes)
                give_own_generators(cell)
                give_own_paths(cell)
            gains = [{} if plan is None else cell.gains(plan) for cell in self.cells]
            self._set_initial_values(gains)
        for cell in self.cells:
            # Only now, since while the blocks were built they had no values.
            for part in sublayers(cell):
                if isinstance(part, Configured):
                    part._restore_inner_layers()
        if self.uniform():
            set_places(self.cells)
        self._guard()

    @abstractmethod
    def _set_initial_values(self, gains: Sequence[Mapping[int, np.ndarray]]) -> None:
        """Replaces the initializers; `gains` has for each layer the factors by the `id` of the variable."""

    @abstractmethod
    def _guard(self) -> None:
        """Has layers refuse what Keras would do to the weights of several blocks as if they were those of one."""

    def _draw_once(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yields the items, then restores Python's `random` state to what it was after the first one.

        That state is Keras's source of default seeds. All blocks draw from the seeds of the first, so that what is made
        after the stack gets the same ones in either way of holding them.
        """
        after_first = None
        for item in items:
            yield item
            after_first = after_first or random.getstate()
        if after_first and self.alike:
            random.setstate(after_first)

    # --- In a call ---------------------------------------------------------------------------------------------------

    def trained_values(self) -> list[Any]:
        """Returns the values of the trained variables, as `loop` takes them."""
        return self._for_loop([[v.value for v in cell.variables if is_trained(v)] for cell in self.cells])

    def state(self) -> list[Any]:
        """Returns the values of all others, likewise, as they are now."""
        return self._for_loop([[_backend.snapshot(v) for v in c.variables if not is_trained(v)] for c in self.cells])

    @abstractmethod
    def _for_loop(self, by_cell: list[Any]) -> Any:
        """Returns what there is of each layer as `loop` takes and returns it."""

    @abstractmethod
    def _by_cell(self, from_loop: Any) -> list[Any]:
        """Undoes `_for_loop`."""

    @abstractmethod
    def others(self, contexts: Contexts, common: Mapping[str, Any]) -> Any:
        """Returns what differs between blocks beside the trained weights, as `loop` takes it.

        Args:
            contexts: What the connections are told.
            common: Structures of tensors with the blocks as their leading axis.
        """

    @abstractmethod
    def contexts_in(self, contexts: Contexts, index: int | None, others: Mapping[str, Any]) -> list[Any]:
        """Returns the contexts of a block's connections, from its index and its part of `others`."""

    @abstractmethod
    def loop(self, body: Body, carry: Any, xs: Any, *, reverse: bool = False) -> tuple[Any, Any]:
        """Applies `body` once a block; see `_backend.loops.Loop`."""

    @abstractmethod
    def keep_activations(self, body: Body) -> Body:
        """Returns a body whose activations are stored for the backward pass, except those cheap to recompute."""

    @abstractmethod
    def loop_in_groups(self, body: Body, recompute: Recompute, size: int, rows: Rows, xs: Any) -> tuple[Rows, Any]:
        """Applies `body` once a block, and keeps for the gradient the rows between groups of `size` blocks."""

    @abstractmethod
    def total(self, losses: Any) -> Any:
        """Returns the sum of the losses that a loop gave off."""

    @abstractmethod
    def join(self, measured: Any) -> dict[str, Any]:
        """Returns the tensors that a loop gave off by name, with all connections of the stack as one leading axis."""

    def assign(self, updates: Any) -> None:
        """Assigns the new state that a loop gave off: values by the index of the variable."""
        # On JAX, weights are arguments of the differentiated function. Elsewhere the gradient would be taken at the
        # newly assigned value, which the blocks' program never reads.
        refused = get_stateless_scope() is None and not _backend.DIFFERENTIATES_FUNCTIONS
        for cell, changed in zip(self.cells, self._by_cell(updates), strict=True):
            variables = cell.variables
            for index, value in changed.items():
                variable = variables[int(index)]
                if refused and is_trained(variable):
                    raise ValueError(
                        f"{self.owner}: a block assigns to {variable.name!r}, which is trained, as "
                        "SpectralNormalization does. The gradient of a scanned, rematerialised or reversible stack "
                        "would be wrong. Use execution='unrolled' and remat=False."
                    )
                variable.assign(value)

    # --- Weights by name ---------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Returns the paths of a block's weights within the block."""
        return _names(self.cells[0])

    @abstractmethod
    def by_block(self) -> list[dict[str, tuple[keras.Variable, int | None]]]:
        """Returns each block's weights by their paths within it: a variable, and which slice of it where it is stacked.

        Unlike `get` it is for blocks with different weights too.
        """

    def uniform(self) -> bool:
        """Returns whether all blocks have weights of the same shapes."""
        shapes = [[weight.shape for weight in cell.weights] for cell in self.cells]
        return all(found == shapes[0] for found in shapes)

    @abstractmethod
    def _stacked_shape(self, variable: keras.Variable) -> tuple[int, ...]:
        """Returns the shape of a layer's variable with the blocks as its leading axis."""

    @abstractmethod
    def _read(self, variables: Callable[[Cell], Sequence[keras.Variable]]) -> list[np.ndarray]:
        """Returns the values of these variables of the layers, each with the blocks as its leading axis."""

    @abstractmethod
    def _write(self, variables: Callable[[Cell], Sequence[keras.Variable]], values: Mapping[int, Any]) -> None:
        """Sets, by their index, what `_read` returns."""

    def get(self) -> dict[str, np.ndarray]:
        """Returns the weights by name, each with the blocks as its leading axis."""
        if not self.uniform():
            raise ValueError(f"{self.owner}: the blocks have different weights, which cannot be stacked.")
        return dict(zip(self.names(), self._read(_weights), strict=True))

    def set(self, weights: Mapping[str, Any]) -> None:
        """Sets weights by name; raises before anything is changed."""
        names = self.names()
        shapes = {name: self._stacked_shape(w) for name, w in zip(names, self.cells[0].weights, strict=True)}
        for name, value in weights.items():
            if name not in shapes:
                raise unknown_name(self.owner, "weights", name, names)
            if tuple(np.shape(value)) != shapes[name]:
                raise self._wrong_shape(name, shapes[name], np.shape(value))
        self._write(_weights, {index: weights[name] for index, name in enumerate(names) if name in weights})

    def copy_from(self, other: Blocks, kept: Sequence[int] | None = None) -> None:
        """Takes the weights and the random states of the same blocks, held in either way.

        Args:
            other: The blocks that have them.
            kept: The indices of those among them that are these, in order; None for all.
        """
        each = list(range(other.depth) if kept is None else kept)
        if other.uniform():
            # In their order: a layer that another one makes when it is built has a new name each time.
            values = [value[each] for value in other.get().values()]
            self.set(dict(zip(self.names(), values, strict=True)))
        else:
            theirs = other._one_by_one()
            for key, weight in self._one_by_one(each).items():
                weight.assign(theirs[key].value)
        for index, cell in zip(each, self.cells, strict=False):  # stacked blocks, fewer cells, have no adapters
            for source, target in zip(sublayers(other.cell(index)), sublayers(cell), strict=False):
                keep_lora_alpha(source, target)
        # Blocks that are left without drop path draw from fewer seeds, and then from those that they were made with.
        if self.alike:
            values = other.non_float_values()
            if len(values) == len(_non_floats(self.cells[0])):
                self.set_non_float_values([value[each] for value in values])
            return
        for index, cell in zip(each, self.cells, strict=True):
            sources, targets = _non_floats(other.cell(index)), _non_floats(cell)
            if len(sources) == len(targets):
                for source, target in zip(sources, targets, strict=True):
                    target.assign(source.value)

    def save(self, store: Any) -> None:
        """Writes the weights in one form for either way of holding them, so that each loads what the other saved."""
        if self.uniform():
            for key, value in enumerate(self.get().values()):
                store[str(key)] = value
            return
        for key, weight in self._one_by_one().items():
            store[key] = _array(weight)

    def load(self, store: Any) -> None:
        """Reads what `save` wrote; raises before anything is changed."""
        found = set(store.keys())
        if self.uniform():
            names = self.names()
            expected = {str(key) for key in range(len(names))}
            if found == expected:
                self.set({name: np.asarray(store[str(key)]) for key, name in enumerate(names)})
                return
        else:
            weights = self._one_by_one()
            expected = set(weights)
            if found == expected:
                arrays = {key: np.asarray(store[key]) for key in weights}
                for key, weight in weights.items():
                    if arrays[key].shape != tuple(weight.shape):
                        raise self._wrong_shape(weight.path, tuple(weight.shape), arrays[key].shape)
                for key, weight in weights.items():
                    weight.assign(arrays[key])
                return
        what = f"the file holds {len(found)} weights, but this stack has {len(expected)}"
        if len(found) == len(expected):
            what = f"the file's {len(found)} weights are those of other blocks"
        raise ValueError(f"{self.owner}: {what}. Load weights saved from a stack of the same blocks.")

    def _wrong_shape(self, name: str, shape: tuple[int, ...], found: tuple[int, ...]) -> ValueError:
        return ValueError(f"{self.owner}: weight {name!r} must have shape {shape}, but has {found}.")

    def non_float_values(self) -> list[np.ndarray]:
        """Returns the values that are not floats, such as seed states, each with the blocks as its leading axis."""
        return self._read(_non_floats)

    def set_non_float_values(self, values: Sequence[np.ndarray]) -> None:
        """Sets what `non_float_values` returns."""
        self._write(_non_floats, dict(enumerate(values)))

    def _one_by_one(self, indices: Sequence[int] | None = None) -> dict[str, keras.Variable]:
        cells = zip(range(len(self.cells)) if indices is None else indices, self.cells, strict=True)
        return {f"block{i}_{k}": weight for i, cell in cells for k, weight in enumerate(cell.weights)}


class SeparateBlocks(Blocks):
    """A layer for each block. What `loop` takes and returns are lists with an entry for each block."""

    in_loop = False

    def _indices(self) -> Sequence[int]:
        return range(self.depth)

    def cell(self, index: int | None) -> Cell:
        """Returns the block of this index."""
        return self.cells[cast(int, index)]

    def _set_initial_values(self, gains: Sequence[Mapping[int, np.ndarray]]) -> None:
        spread_initial_values(self.cells, gains)
        if self.alike:
            spread_seeds(self.cells)

    def _guard(self) -> None:
        pass  # each layer has the weights of one block

    def _for_loop(self, by_cell: list[Any]) -> list[Any]:
        return by_cell

    def _by_cell(self, from_loop: list[Any]) -> list[Any]:
        return from_loop

    def others(self, contexts: Contexts, common: Mapping[str, Any]) -> list[Any]:
        """Returns a dictionary for each block."""
        del contexts
        return [
            {"state": values, **cast(Any, keras.tree.map_structure(lambda x, i=index: x[i], dict(common)))}
            for index, values in enumerate(self.state())
        ]

    def contexts_in(self, contexts: Contexts, index: int | None, others: Mapping[str, Any]) -> list[Any]:
        """Returns contexts of plain numbers."""
        del others
        return contexts.of_block(index)

    def loop(self, body: Body, carry: Any, xs: Any, *, reverse: bool = False) -> tuple[Any, Any]:
        """Calls one block after another."""
        return _backend.unroll(body, carry, xs, reverse=reverse)

    def keep_activations(self, body: Body) -> Body:
        """Returns the body itself: single operations keep what they need."""
        return body

    def loop_in_groups(self, body: Body, recompute: Recompute, size: int, rows: Rows, xs: Any) -> tuple[Rows, Any]:
        """Calls one group after another; the last may be smaller."""
        given_off = []
        for start in range(0, self.depth, size):
            group = recompute(functools.partial(_unroll_from, body, start))
            rows, ys = group(rows, tuple(x[start : start + size] for x in xs))
            given_off.append(ys)
        return rows, tuple([item for part in kind for item in part] for kind in zip(*given_off, strict=True))

    def total(self, losses: list[Any]) -> Any:
        """Returns the sum of a list."""
        return sum(losses)

    def join(self, measured: list[Any]) -> dict[str, Any]:
        """Returns the tensors of all blocks, stacked."""
        return _flat({name: ops.stack([block[name] for block in measured]) for name in measured[0]})

    def by_block(self) -> list[dict[str, tuple[keras.Variable, int | None]]]:
        """Returns the weights of each block, none of them a slice."""
        return [
            {name: (weight, None) for name, weight in zip(_names(cell), cell.weights, strict=True)}
            for cell in self.cells
        ]

    def _stacked_shape(self, variable: keras.Variable) -> tuple[int, ...]:
        return (self.depth, *variable.shape)

    def _read(self, variables: Callable[[Cell], Sequence[keras.Variable]]) -> list[np.ndarray]:
        each = [[_array(variable) for variable in variables(cell)] for cell in self.cells]
        return [np.stack(values) for values in zip(*each, strict=True)]

    def _write(self, variables: Callable[[Cell], Sequence[keras.Variable]], values: Mapping[int, Any]) -> None:
        arrays = {place: np.asarray(value) for place, value in values.items()}
        for index, cell in enumerate(self.cells):
            found = variables(cell)
            for place, array in arrays.items():
                found[place].assign(array[index])


class StackedBlocks(Blocks):
    """One layer with the weights of all blocks. `loop` takes and returns tensors, with the blocks as the first axis."""

    in_loop = True

    def _indices(self) -> Sequence[None]:
        return [None]

    def cell(self, index: int | None) -> Cell:
        """Returns the layer that stands for every block."""
        del index
        return self.cells[0]

    def _set_initial_values(self, gains: Sequence[Mapping[int, np.ndarray]]) -> None:
        stack_variables(self.owner, self.cells[0], self.depth, gains[0])

    def _guard(self) -> None:
        refuse_by_block(self.owner, self.cells[0])

    def _for_loop(self, by_cell: list[Any]) -> Any:
        return by_cell[0]

    def _by_cell(self, from_loop: Any) -> list[Any]:
        return [from_loop]

    def others(self, contexts: Contexts, common: Mapping[str, Any]) -> dict[str, Any]:
        """Returns tensors, among them the index and the contexts of each block."""
        # An array rather than `ops.arange`, which exporters of single operations have no rule for.
        index = ops.convert_to_tensor(np.arange(self.depth, dtype="int32"))
        return {"state": self.state(), "index": index, "context": contexts.tensors(), **common}

    def contexts_in(self, contexts: Contexts, index: int | None, others: Mapping[str, Any]) -> list[Any]:
        """Returns contexts of scalar tensors."""
        del index
        return contexts.of_block(others["index"], others["context"])

    def loop(self, body: Body, carry: Any, xs: Any, *, reverse: bool = False) -> tuple[Any, Any]:
        """Scans."""
        return _backend.scan(body, carry, xs, reverse=reverse)

    def keep_activations(self, body: Body) -> Body:
        """Returns the body, of which JAX computes again what is cheap."""
        return lambda rows, x, index: _backend.recompute_cheap(lambda rows, *x: body(rows, x, index))(rows, *x)

    def loop_in_groups(self, body: Body, recompute: Recompute, size: int, rows: Rows, xs: Any) -> tuple[Rows, Any]:
        """Scans groups of blocks, and after them the blocks that are left over."""
        whole = self.depth - self.depth % size
        # Slicing would copy the weights and their gradients, so slice only if blocks are left over.
        first = xs if whole == self.depth else _map(lambda x: x[:whole], xs)
        groups = _map(lambda x: _regrouped(x, (whole // size, size), 1), first)

        def group(rows: Any, x: Any, index: int | None) -> Any:
            del index
            return recompute(lambda rows, x: _backend.scan(body, rows, x))(rows, x)

        rows, ys = _backend.scan(group, rows, groups)
        ys = _map(lambda y: _regrouped(y, (whole,), 2), ys)
        if whole < self.depth:
            rows, rest = _backend.scan(body, rows, _map(lambda x: x[whole:], xs))
            ys = keras.tree.map_structure(lambda *parts: ops.concatenate(parts), ys, rest)
        return rows, ys

    def total(self, losses: Any) -> Any:
        """Returns the sum over a tensor."""
        return ops.sum(losses)

    def join(self, measured: Any) -> dict[str, Any]:
        """Returns the tensors, reshaped."""
        return _flat(measured)

    def by_block(self) -> list[dict[str, tuple[keras.Variable, int | None]]]:
        """Returns for each block the same variables, each with the block's index."""
        pairs = list(zip(self.names(), self.cells[0].weights, strict=True))
        return [{name: (variable, index) for name, variable in pairs} for index in range(self.depth)]

    def _stacked_shape(self, variable: keras.Variable) -> tuple[int, ...]:
        return tuple(variable.shape)

    def _read(self, variables: Callable[[Cell], Sequence[keras.Variable]]) -> list[np.ndarray]:
        return [_array(variable) for variable in variables(self.cells[0])]

    def _write(self, variables: Callable[[Cell], Sequence[keras.Variable]], values: Mapping[int, Any]) -> None:
        found = variables(self.cells[0])
        for place, value in values.items():
            found[place].assign(value)


BLOCKS: Mapping[str, type[Blocks]] = {"unrolled": SeparateBlocks, "scan": StackedBlocks}
"""How blocks are held, by the execution of their stack."""


def choose_execution(owner: str, asked: str, depth: int, hindrance: str | None) -> tuple[str, str]:
    """Returns the execution of a stack, `"unrolled"` or `"scan"`, and the reason for it.

    Args:
        owner: The stack, for messages.
        asked: What the user asked for, also `"auto"`.
        depth: Number of blocks.
        hindrance: Why the blocks cannot be scanned, or None.
    """
    scan_from = _backend.SCAN_FROM
    if asked == "scan" and hindrance:
        raise bad_argument(owner, "execution", f"'unrolled' or 'auto' here, since {hindrance}", asked)
    if asked != "auto":
        return asked, "asked for"
    if hindrance:
        return "unrolled", hindrance
    if scan_from is None:
        return "unrolled", f"{_backend.BACKEND} runs blocks one by one either way, and separate layers are quicker"
    if depth < scan_from:
        return "unrolled", f"fewer than {scan_from} blocks, which compile one by one as quickly"
    return "scan", f"{depth} blocks compile as one on {_backend.BACKEND}"


def _weights(cell: Cell) -> Sequence[keras.Variable]:
    return cell.weights


def _non_floats(cell: Cell) -> Sequence[keras.Variable]:
    return [variable for variable in cell.variables if not is_float(variable)]


def _names(cell: Cell) -> list[str]:
    """Returns the paths of a layer's weights within it, those that occur more than once with their number behind."""
    names = [weight.path.removeprefix(f"{cell.path}/") for weight in cell.weights]
    often = {name for name, times in Counter(names).items() if times > 1}
    return [f"{name}:{index}" if name in often else name for index, name in enumerate(names)]


def _array(variable: Any) -> np.ndarray:
    value = variable.value
    if keras.backend.standardize_dtype(value.dtype) == "bfloat16":
        value = ops.cast(value, "float32")  # NumPy has no bfloat16
    return cast(np.ndarray, ops.convert_to_numpy(value))


def _flat(measured: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _regrouped(value, (-1,), 2) for name, value in measured.items()}


def _unroll_from(body: Body, start: int, rows: Any, part: Any) -> Any:
    return _backend.unroll(lambda rows, x, index: body(rows, x, start + cast(int, index)), rows, part)


def _map(function: Callable[[Any], Any], tree: Any) -> Any:
    return keras.tree.map_structure(function, tree)


def _regrouped(x: Any, sizes: tuple[int, ...], axes: int) -> Any:
    """Returns `x` with axes of these sizes in the place of its first axes; others may be unknown while compiling."""
    return ops.reshape(x, (*sizes, *cast(Any, ops.shape(x))[axes:]))
