"""The variables of a stack's blocks: stacked along a leading axis or separate, with the same initial values."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual import _backend
from keras_residual._keras import get_stateless_scope, register_uninitialized_variable
from keras_residual.residual.shapes import sublayers
from keras_residual.stacks.initial_values import HostInitializer, StackedInitializer


class StackedVariable(keras.Variable):
    """A variable of a block's layer that holds the values of all blocks along a leading axis.

    To Keras it is one variable of that shape. Within the body of a scan, where a scope has one block's slice in its
    place, it is that slice, shape and all, so that the layer need not know. Made by `stack_variables`.
    """

    stacked_axes: int
    """How many leading axes number blocks: one, and one more for each scanned stack around the stack."""
    stack: str
    """The outermost of these stacks, for messages."""
    block_path: str
    """Path of the one layer that stands for all blocks of that stack."""

    @property
    def _shape(self) -> Any:
        scope = get_stateless_scope()
        value = None if scope is None else scope.get_current_value(self)
        return self.__dict__["_shape"] if value is None else tuple(value.shape)

    @_shape.setter
    def _shape(self, shape: Any) -> None:
        self.__dict__["_shape"] = shape

    @property
    def _ndim(self) -> int:
        return len(self._shape)


def shape_in_block(variable: keras.Variable) -> tuple[int, ...]:
    """Returns the shape of a variable in one block: without the axes along which a scanned stack lays its blocks."""
    return tuple(variable.shape)[getattr(variable, "stacked_axes", 0) :]


def rank_in_block(variable: keras.Variable) -> int:
    """Returns the number of a variable's axes in one block.

    What treats matrices and vectors differently, such as weight decay, goes by this.
    """
    return len(shape_in_block(variable))


def in_block(variable: StackedVariable, index: int) -> Any:
    """Returns name, path, shape and dtype that a variable would have in a block, as an unrolled stack has them.

    For what goes by these to choose for a variable, such as a map of layouts or of optimizers.
    """
    path = variable.path.replace(variable.block_path, f"{variable.block_path}_{index}", 1)
    shape = shape_in_block(variable)
    told = {"name": variable.name, "path": path, "shape": shape, "ndim": len(shape)}
    return SimpleNamespace(**told, dtype=variable.dtype, trainable=variable.trainable)


_PLACE = "_keras_residual_place"


def refuse_by_block(owner: str, cell: keras.Layer) -> None:
    """Makes the layers of a block whose variables are stacked refuse what Keras would do to all blocks as one.

    Args:
        owner: The stack, for messages.
        cell: The block.
    """

    def refusal(what: str) -> Callable[..., Any]:
        def refuse(*args: Any, **kwargs: Any) -> None:
            raise ValueError(
                f"{owner}: {what} does not reach the layers of a scanned stack, which has the weights of all its "
                "blocks in one. Take execution='unrolled' for the stack, or stack.with_execution('unrolled')."
            )

        return refuse

    for part in sublayers(cell):
        if type(part).quantize is not keras.Layer.quantize:
            part.quantize = refusal("quantize")
        if hasattr(part, "enable_lora"):
            part.enable_lora = refusal("enable_lora")


def set_places(cells: Sequence[keras.Layer]) -> None:
    """Notes of each variable of a stack which weight of a block it is, for `place_of`.

    Args:
        cells: The blocks, which have weights of the same shapes, or the one of a scanned stack.
    """
    stack = object()
    for cell in cells:
        for index, variable in enumerate(cell.variables):
            setattr(variable, _PLACE, (stack, index))


def place_of(variable: Any) -> Any:
    """Returns the outermost stack that a variable is in and which weight of a block it is there; None outside of one.

    It is the same for that weight of every block.
    """
    return getattr(variable, _PLACE, None)


def is_float(variable: keras.Variable) -> bool:
    """Returns whether a variable holds numbers that may be drawn and trained; the states of seed generators do not."""
    return keras.backend.is_float_dtype(variable._dtype)


def is_trained(variable: keras.Variable) -> bool:
    """Returns whether a gradient is computed for a variable; state that blocks update by themselves has none."""
    return variable.trainable and is_float(variable)


def seed_generators(layer: keras.Layer) -> list[keras.random.SeedGenerator]:
    """Returns the seed generators of a layer and of all in it."""
    return list({id(g): g for part in sublayers(layer) for g in part._seed_generators}.values())


def block_states(generator: keras.random.SeedGenerator, depth: int) -> np.ndarray:
    """Returns the state of a generator's copy in each block, `(depth, …, 2)`, which follows from its own."""
    state = generator.state
    start, fresh = _start_of(state), []
    if start is None:
        start, fresh = np.zeros(state.shape, "int64"), [random.getrandbits(31)]
    states = np.broadcast_to(start, (depth, *start.shape)).astype("int64")
    for place in np.ndindex(states.shape[:-1]):
        entropy = [*fresh, int(start[place[1:]][0]), *place]
        states[(*place, 0)] = np.random.SeedSequence(entropy).generate_state(1)[0] >> 1
    return states


def _start_of(state: Any) -> np.ndarray | None:
    """Returns the value of a state, also where a scope of Keras's holds it back; None while a function is traced."""
    value = state._initializer(state.shape, dtype=state._dtype) if state._value is None else state._value
    try:
        return np.asarray(ops.convert_to_numpy(value))
    except Exception:
        return None


def spread_seeds(cells: Sequence[keras.Layer]) -> None:
    """Gives the seed generators of blocks the states that a scanned stack's slices have; in a stateless scope."""
    base = [block_states(generator, len(cells)) for generator in seed_generators(cells[0])]
    for index, cell in enumerate(cells):
        for generator, states in zip(seed_generators(cell), base, strict=True):
            _start_with(generator.state, _constant(states[index]))


def _start_with(variable: Any, initializer: Any) -> None:
    """Has a variable start with another value once the stateless scope is left, whether or not it has one already."""
    variable._initializer = initializer
    if variable._value is not None:
        variable._value = None
        register_uninitialized_variable(variable)


def _constant(value: np.ndarray) -> Callable[..., Any]:
    def initializer(shape: Any, dtype: Any = None) -> Any:
        del shape
        return ops.convert_to_tensor(value, dtype=dtype)

    return initializer


def own_seeds(layer: keras.Layer) -> None:
    """Makes every dropout in a layer draw from its own generator, so that what was drawn can be drawn again.

    On PyTorch, Keras lets a dropout that was given no seed draw from the global generator instead.
    """
    for generator in seed_generators(layer):
        if generator._initial_seed is None:
            generator._initial_seed = 0


def own_paths(cell: Any) -> None:
    """Gives variables that were made with their layer, before there was a block, the paths of those made in it.

    On PyTorch, Keras sets gradients back by path: of copies with one path it would leave all but one to add up.
    """
    prefix = cell.path.rpartition("/")[0]
    for part in sublayers(cell):
        for variable in (*part._trainable_variables, *part._non_trainable_variables):
            if not variable.path.startswith(f"{prefix}/"):
                path = part.path or part.name  # a layer that was built before has one without the stack's
                path = path if path.startswith(f"{prefix}/") else f"{cell.path}/{path}"
                variable._path = f"{path}/{variable.name}"


def stack_variables(owner: str, cell: Any, depth: int, gains: Mapping[int, np.ndarray]) -> None:
    """Gives each variable of a block that was built in a stateless scope a slice for each depth.

    Args:
        owner: The stack, for messages.
        cell: The block.
        depth: Number of blocks.
        gains: Factors `(depth,)` on initial values, by the `id` of the variable.
    """
    states = {id(g.state): block_states(g, depth) for g in seed_generators(cell)}
    for variable in cell.variables:
        if id(variable) in states:
            initializer: Any = _constant(states[id(variable)])
        else:
            initializer = variable._initializer
            if variable._value is not None:
                # Made with its layer, before there was a stack: every block starts with the same.
                initializer = _constant(np.asarray(ops.convert_to_numpy(variable._value)))
            initializer = StackedInitializer(initializer, depth, gains.get(id(variable)))
        shape = (depth, *variable.shape)
        inner_axes = getattr(variable, "stacked_axes", 0)
        if variable.regularizer is not None:
            variable.regularizer = StackedRegularizer(variable.regularizer)
        if variable.constraint is not None:
            variable.constraint = StackedConstraint(variable.constraint)
        # Another class for what the layer already holds: Keras has no way to make a layer create variables of ours.
        variable.__class__ = StackedVariable
        variable.stack, variable.block_path = owner, cell.path
        variable._layout = _stacked_layout(variable, depth)
        variable.stacked_axes, variable._shape = 1 + inner_axes, shape
        _start_with(variable, initializer)


def _stacked_layout(variable: Any, depth: int) -> Any:
    """Returns how a variable is laid out over devices: as that of a block of its own, whole along the blocks."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return None
    layouts = [variable._layout]  # where a scanned stack in the block has set it
    if variable._layout is None:
        layouts = [distribution.get_variable_layout(in_block(variable, index)) for index in range(depth)]
    if any(layout.axes != layouts[0].axes for layout in layouts):
        raise ValueError(
            f"{variable.stack}: the layout must be the same for the weight {variable.name!r} of every block, but the "
            "distribution has several, and a scanned stack has the weights of all its blocks in one. Take "
            "execution='unrolled'."
        )
    return keras.distribution.TensorLayout([None, *layouts[0].axes], layouts[0].device_mesh)


def spread_initial_values(cells: Sequence[Any], gains: Sequence[Mapping[int, np.ndarray]]) -> None:
    """Gives blocks that were built in a stateless scope the initial values that a scanned stack's slices have.

    Args:
        cells: The blocks; those after the first draw by the first one's initializers, each at its own depth.
        gains: For each block the factors on initial values, by the `id` of the variable.
    """
    initializers = [variable._initializer for variable in cells[0].variables]
    for index, (cell, factors) in enumerate(zip(cells, gains, strict=True)):
        # What the initial values of a link are may depend on the depth, and its own initializer knows it.
        own = {id(variable) for link in cell.links for variable in link.variables}
        for place, variable in enumerate(cell.variables):
            if variable._value is not None or not is_float(variable):
                continue
            alike = len(initializers) == len(cell.variables) and id(variable) not in own
            gain = factors.get(id(variable))
            variable._initializer = HostInitializer(
                initializers[place] if alike else variable._initializer,
                index,
                1.0 if gain is None else float(gain[index]),
            )


class StackedRegularizer(keras.regularizers.Regularizer):
    """A regulariser of each block's weight, summed over the blocks."""

    def __init__(self, regularizer: Any) -> None:
        self.regularizer = regularizer

    def __call__(self, x: Any) -> Any:
        """Returns the sum."""
        return ops.sum(_backend.map_slices(self.regularizer, ops.convert_to_tensor(x)))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"regularizer": keras.saving.serialize_keras_object(self.regularizer)}


class StackedConstraint(keras.constraints.Constraint):
    """A constraint of each block's weight."""

    def __init__(self, constraint: Any) -> None:
        self.constraint = constraint

    def __call__(self, w: Any) -> Any:
        """Returns the weights that hold it."""
        return _backend.map_slices(self.constraint, ops.convert_to_tensor(w))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"constraint": keras.saving.serialize_keras_object(self.constraint)}


class BlockCount(int):
    """A number of weights that says, where Keras prints it in a summary, how the blocks make it up.

    Args:
        total: Number of weights in all.
        depth: Number of blocks.
        execution: How the blocks are applied.
        outside: How many of the weights belong to no block.
    """

    depth: int
    execution: str
    outside: int

    def __new__(cls, total: int, depth: int, execution: str, outside: int) -> BlockCount:
        """Makes the number."""
        made = super().__new__(cls, total)
        made.depth, made.execution, made.outside = depth, execution, outside
        return made

    def __format__(self, form: str) -> str:
        number = super().__format__(form)
        if form != ",":
            return number
        each, rest = divmod(self - self.outside, self.depth)
        share = f"{each:,}" if rest == 0 else f"about {each:,}"
        return f"{number}\n{self.depth:,} × {share}\n{self.execution}"
