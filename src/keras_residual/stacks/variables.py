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
from keras_residual._keras import called_by_summary, get_stateless_scope, register_uninitialized_variable
from keras_residual.residual.shapes import sublayers
from keras_residual.stacks.initial_values import HostInitializer, StackedInitializer


class StackedVariable(keras.Variable):
    """A variable of a layer in a block that holds the values of all blocks along a leading axis.

    To Keras it is one variable of that shape. Within the body of a scan, a scope replaces its value by the slice of one
    block, and its shape with it, so that the layer need not know. Made by `stack_variables`.
    """

    stacked_axes: int
    """Number of leading axes that index blocks: one, and one more for each scanned stack around the stack."""
    stack: str
    """The outermost scanned stack, for messages."""
    block_path: str
    """Path of the layer that stands for all blocks of that stack."""

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
    """Returns the shape of a variable in one block, without the axes along which scanned stacks hold their blocks."""
    return tuple(variable.shape)[getattr(variable, "stacked_axes", 0) :]


def rank_in_block(variable: keras.Variable) -> int:
    """Returns the number of axes of a variable in one block.

    For code that treats matrices and vectors differently, such as weight decay.
    """
    return len(shape_in_block(variable))


def in_block(variable: StackedVariable, index: int) -> Any:
    """Returns the name, path, shape and dtype that a variable would have in one block of an unrolled stack.

    For maps of layouts or optimizers, which choose by these.
    """
    path = variable.path.replace(variable.block_path, f"{variable.block_path}_{index}", 1)
    shape = shape_in_block(variable)
    told = {"name": variable.name, "path": path, "shape": shape, "ndim": len(shape)}
    return SimpleNamespace(**told, dtype=variable.dtype, trainable=variable.trainable)


_PLACE = "_keras_residual_place"


def refuse_by_block(owner: str, cell: keras.Layer) -> None:
    """Makes layers with stacked variables refuse what Keras would do to the weights of all blocks as one.

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
    """Records for each variable of a stack which weight of a block it is, for `place_of`.

    Args:
        cells: The blocks, with weights of the same shapes, or the layer that stands for all of them.
    """
    stack = object()
    for cell in cells:
        for index, variable in enumerate(cell.variables):
            setattr(variable, _PLACE, (stack, index))


def place_of(variable: Any) -> Any:
    """Returns an identifier of a weight within its outermost stack, the same for every block; None outside stacks."""
    return getattr(variable, _PLACE, None)


def is_float(variable: keras.Variable) -> bool:
    """Returns whether a variable holds floats; the states of seed generators are integers."""
    return keras.backend.is_float_dtype(variable._dtype)


def is_trained(variable: keras.Variable) -> bool:
    """Returns whether a gradient is computed for a variable; state that blocks update by themselves has none."""
    return variable.trainable and is_float(variable)


def seed_generators(layer: keras.Layer) -> list[keras.random.SeedGenerator]:
    """Returns the seed generators of a layer and of all layers in it."""
    return list({id(g): g for part in sublayers(layer) for g in part._seed_generators}.values())


def block_states(generator: keras.random.SeedGenerator, depth: int) -> np.ndarray:
    """Returns states for the copies of a generator in each block, `(depth, …, 2)`, derived from its own state."""
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
    """Returns the value of a state, even if a scope defers its creation; None while a function is traced."""
    value = state._initializer(state.shape, dtype=state._dtype) if state._value is None else state._value
    try:
        return np.asarray(ops.convert_to_numpy(value))
    except Exception:
        return None


def spread_seeds(cells: Sequence[keras.Layer]) -> None:
    """Gives the seed generators of separate blocks the states that stacked blocks have; in a stateless scope."""
    base = [block_states(generator, len(cells)) for generator in seed_generators(cells[0])]
    for index, cell in enumerate(cells):
        for generator, states in zip(seed_generators(cell), base, strict=True):
            _start_with(generator.state, _constant(states[index]))


def _start_with(variable: Any, initializer: Any) -> None:
    """Gives a variable another initial value at the end of the stateless scope, even if it already has a value."""
    variable._initializer = initializer
    if variable._value is not None:
        variable._value = None
        register_uninitialized_variable(variable)


def _constant(value: np.ndarray) -> Callable[..., Any]:
    def initializer(shape: Any, dtype: Any = None) -> Any:
        del shape
        return ops.convert_to_tensor(value, dtype=dtype)

    return initializer


def give_own_generators(layer: keras.Layer) -> None:
    """Makes every dropout in a layer draw from its own generator, so that its draws can be repeated.

    On PyTorch, Keras lets a dropout without a seed draw from the global generator instead.
    """
    for generator in seed_generators(layer):
        if generator._initial_seed is None:
            generator._initial_seed = 0


def give_own_paths(cell: Any) -> None:
    """Gives variables that were created before the block existed paths within the block.

    On PyTorch, Keras resets gradients by path: of copies that share a path, it would let all but one accumulate.
    """
    prefix = cell.path.rpartition("/")[0]
    for part in sublayers(cell):
        for variable in (*part._trainable_variables, *part._non_trainable_variables):
            if not variable.path.startswith(f"{prefix}/"):
                path = part.path or part.name  # a layer built earlier has a path without that of the stack
                path = path if path.startswith(f"{prefix}/") else f"{cell.path}/{path}"
                variable._path = f"{path}/{variable.name}"


def stack_variables(owner: str, cell: Any, depth: int, gains: Mapping[int, np.ndarray]) -> None:
    """Gives the variables of a block built in a stateless scope a leading axis with a slice for each block.

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
                # Created with its layer, before the stack: every block starts with the same value.
                initializer = _constant(np.asarray(ops.convert_to_numpy(variable._value)))
            initializer = StackedInitializer(initializer, depth, gains.get(id(variable)))
        shape = (depth, *variable.shape)
        inner_axes = getattr(variable, "stacked_axes", 0)
        if variable.regularizer is not None:
            variable.regularizer = StackedRegularizer(variable.regularizer)
        if variable.constraint is not None:
            variable.constraint = StackedConstraint(variable.constraint)
        # Changes the class in place: Keras has no way to make a layer create variables of another class.
        variable.__class__ = StackedVariable
        variable.stack, variable.block_path = owner, cell.path
        variable._layout = _stacked_layout(variable, depth)
        variable.stacked_axes, variable._shape = 1 + inner_axes, shape
        _start_with(variable, initializer)


def _stacked_layout(variable: Any, depth: int) -> Any:
    """Returns the layout over devices: that of a variable in one block, not split along the axis of blocks."""
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
    """Gives separate blocks built in a stateless scope the initial values that stacked blocks have.

    Args:
        cells: The blocks; all use the initializers of the first one, each for its own index.
        gains: For each block the factors on initial values, by the `id` of the variable.
    """
    initializers = [variable._initializer for variable in cells[0].variables]
    for index, (cell, factors) in enumerate(zip(cells, gains, strict=True)):
        # The initial values of a link may depend on the depth, which its own initializer knows.
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
    """A regulariser applied to the weight of each block and summed over the blocks."""

    def __init__(self, regularizer: Any) -> None:
        self.regularizer = regularizer

    def __call__(self, x: Any) -> Any:
        """Returns the sum."""
        return ops.sum(_backend.map_slices(self.regularizer, ops.convert_to_tensor(x)))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"regularizer": keras.saving.serialize_keras_object(self.regularizer)}


class StackedConstraint(keras.constraints.Constraint):
    """A constraint applied to the weight of each block."""

    def __init__(self, constraint: Any) -> None:
        self.constraint = constraint

    def __call__(self, w: Any) -> Any:
        """Returns the constrained weights."""
        return _backend.map_slices(self.constraint, ops.convert_to_tensor(w))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"constraint": keras.saving.serialize_keras_object(self.constraint)}


class BlockCount(int):
    """A number of weights that also shows, in the summary of a model, how many each block has.

    Args:
        total: Number of weights in all.
        depth: Number of blocks.
        execution: How the blocks are executed.
        outside: Number of weights that belong to no block.
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
        if not called_by_summary():
            return number
        each, rest = divmod(self - self.outside, self.depth)
        share = f"{each:,}" if rest == 0 else f"about {each:,}"
        return f"{number}\n{self.depth:,} × {share}\n{self.execution}"
