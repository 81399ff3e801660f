"""The blocks of a stack and their variables, whether each block has its own or all are slices of stacked ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import keras
import numpy as np
from keras import ops

from keras_residual import _backend
from keras_residual._errors import bad_argument, unknown_name
from keras_residual._keras import get_stateless_scope
from keras_residual.residual.shapes import keep_lora_alpha, sublayers
from keras_residual.stacks.cell import Cell
from keras_residual.stacks.counts import distinct
from keras_residual.stacks.execution import is_trained
from keras_residual.stacks.state import is_float


class Blocks:
    """The blocks of one stack. No layer, so that Keras does not look into it: the stack itself saves and counts.

    Args:
        owner: The stack, for messages.
        cells: The blocks in order, or the one that stands for all of a scanned stack, with stacked variables.
        depth: Number of blocks.
        scanned: Whether the stack is scanned.
    """

    def __init__(self, owner: str, cells: Sequence[Cell], depth: int, *, scanned: bool) -> None:
        self.owner = owner
        self.cells = list(cells)
        self.depth = depth
        self.scanned = scanned

    # --- In a call ---------------------------------------------------------------------------------------------------

    def trained(self) -> list[Any]:
        """Returns the values of the trained variables: stacked, or a list for each block."""
        each = [[variable.value for variable in cell.variables if is_trained(variable)] for cell in self.cells]
        return each[0] if self.scanned else each

    def state(self) -> list[Any]:
        """Returns the values of all others, likewise, as they are now."""
        each = [[_backend.snapshot(v) for v in cell.variables if not is_trained(v)] for cell in self.cells]
        return each[0] if self.scanned else each

    def assign(self, updates: Any) -> None:
        """Assigns what the blocks made of their state: new values by the index of the variable."""
        # With JAX the gradient is that of a function whose weights are its arguments. Elsewhere it is asked for at what
        # was assigned, which a program of the blocks does not give.
        refused = get_stateless_scope() is None and not _backend.DIFFERENTIATES_FUNCTIONS
        for cell, changed in zip(self.cells, [updates] if self.scanned else updates, strict=True):
            variables = cell.variables
            for index, value in changed.items():
                variable = variables[int(index)]
                if refused and is_trained(variable):
                    raise ValueError(
                        f"{self.owner}: a block assigns to {variable.name!r}, which is trained, as "
                        "SpectralNormalization does. Of a scanned, rematerialised or reversible stack the gradient "
                        "would be another one. Use execution='unrolled' and remat=False."
                    )
                variable.assign(value)

    # --- Weights by name ---------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Returns the paths of a block's weights within the block."""
        prefix = f"{self.cells[0].path}/"
        return distinct([weight.path.removeprefix(prefix) for weight in self.cells[0].weights])

    def by_block(self) -> list[dict[str, tuple[keras.Variable, int | None]]]:
        """Returns each block's weights by their paths within it: a variable, and which slice of it where it is stacked.

        Unlike `get` it is for blocks with different weights too.
        """
        if self.scanned:
            pairs = list(zip(self.names(), self.cells[0].weights, strict=True))
            return [{name: (variable, index) for name, variable in pairs} for index in range(self.depth)]
        found = []
        for cell in self.cells:
            names = distinct([weight.path.removeprefix(f"{cell.path}/") for weight in cell.weights])
            found.append({name: (weight, None) for name, weight in zip(names, cell.weights, strict=True)})
        return found

    def uniform(self) -> bool:
        """Returns whether all blocks have weights of the same shapes."""
        shapes = [[weight.shape for weight in cell.weights] for cell in self.cells]
        return all(found == shapes[0] for found in shapes)

    def get(self) -> dict[str, np.ndarray]:
        """Returns the weights by name, each with the blocks as its leading axis."""
        if self.scanned:
            arrays = [_array(variable) for variable in self.cells[0].weights]
        elif not self.uniform():
            raise ValueError(f"{self.owner}: the blocks have different weights, which cannot be stacked.")
        else:
            each = [[_array(weight) for weight in cell.weights] for cell in self.cells]
            arrays = [np.stack(values) for values in zip(*each, strict=True)]
        return dict(zip(self.names(), arrays, strict=True))

    def set(self, weights: Mapping[str, Any]) -> None:
        """Sets weights by name; raises before anything is changed."""
        names = self.names()
        axis = () if self.scanned else (self.depth,)
        shapes = {name: (*axis, *w.shape) for name, w in zip(names, self.cells[0].weights, strict=True)}
        for name, value in weights.items():
            if name not in shapes:
                raise unknown_name(self.owner, "weights", name, names)
            if tuple(np.shape(value)) != shapes[name]:
                raise bad_argument(self.owner, "weights", f"{name} of shape {shapes[name]}", np.shape(value))
        if self.scanned:
            for name, variable in zip(names, self.cells[0].weights, strict=True):
                if name in weights:
                    variable.assign(weights[name])
            return
        for index, cell in enumerate(self.cells):
            for name, variable in zip(names, cell.weights, strict=True):
                if name in weights:
                    variable.assign(np.asarray(weights[name])[index])

    def copy_from(self, other: Blocks, kept: Sequence[int] | None = None) -> None:
        """Takes the weights and the random states of the same blocks, executed in another way.

        Args:
            other: The blocks that have them.
            kept: The indices of those among them that are these, in order; None for all.
        """
        each = list(range(other.depth) if kept is None else kept)
        if self.scanned or other.scanned or other.uniform():
            # In their order: a layer that another one makes when it is built has a new name each time.
            values = [value[each] for value in other.get().values()]
            self.set(dict(zip(self.names(), values, strict=True)))
        else:
            theirs = other._one_by_one()
            for key, weight in self._one_by_one(each).items():
                weight.assign(theirs[key].value)
        if not (self.scanned or other.scanned):
            for index, cell in zip(each, self.cells, strict=True):
                for source, target in zip(sublayers(other.cells[index]), sublayers(cell), strict=False):
                    keep_lora_alpha(source, target)
        states = other.states_of_seeds()
        # Blocks that are left without drop path draw by fewer seeds, and then by those that they were made with.
        if kept is None or len(states) == len(_states(self.cells[0].variables)):
            self.set_states_of_seeds([state[each] for state in states])

    def save(self, store: Any) -> None:
        """Writes the weights in the same form for each execution, so that either loads into either."""
        if self.scanned or self.uniform():
            for key, value in enumerate(self.get().values()):
                store[str(key)] = value
            return
        for key, weight in self._one_by_one().items():
            store[key] = _array(weight)

    def load(self, store: Any) -> None:
        """Reads what `save` wrote; raises before anything is changed."""
        found = set(store.keys())
        if self.scanned or self.uniform():
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
                        raise bad_argument(self.owner, "weights", f"{key} of shape {weight.shape}", arrays[key].shape)
                for key, weight in weights.items():
                    weight.assign(arrays[key])
                return
        raise ValueError(
            f"{self.owner}: the file has weights {_some(found)} for this stack, and it needs {_some(expected)}. Load "
            "the weights of a stack of the same blocks."
        )

    def states_of_seeds(self) -> list[np.ndarray]:
        """Returns the states of the seed generators, each with the blocks as its leading axis."""
        if self.scanned:
            return [_array(state) for state in _states(self.cells[0].variables)]
        each = [[_array(state) for state in _states(cell.variables)] for cell in self.cells]
        return [np.stack(values) for values in zip(*each, strict=True)]

    def set_states_of_seeds(self, states: Sequence[np.ndarray]) -> None:
        """Sets what `states_of_seeds` returns."""
        if self.scanned:
            for variable, value in zip(_states(self.cells[0].variables), states, strict=True):
                variable.assign(value)
            return
        for index, cell in enumerate(self.cells):
            for variable, value in zip(_states(cell.variables), states, strict=True):
                variable.assign(value[index])

    def _one_by_one(self, indices: Sequence[int] | None = None) -> dict[str, keras.Variable]:
        cells = zip(range(len(self.cells)) if indices is None else indices, self.cells, strict=True)
        return {f"block{i}_{k}": weight for i, cell in cells for k, weight in enumerate(cell.weights)}


def _states(variables: Sequence[keras.Variable]) -> list[keras.Variable]:
    return [variable for variable in variables if not is_float(variable)]


def _array(variable: Any) -> np.ndarray:
    value = variable.value
    if keras.backend.standardize_dtype(value.dtype) == "bfloat16":
        value = ops.cast(value, "float32")  # NumPy has no bfloat16
    return cast(np.ndarray, ops.convert_to_numpy(value))


def _some(keys: set[str]) -> str:
    shown = ", ".join(sorted(keys)[:5])
    return f"{shown}, … ({len(keys)} in all)" if len(keys) > 5 else f"{shown or 'none'}"
