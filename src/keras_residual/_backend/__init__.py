"""What Keras has no operation for, or a slow one; the one folder that names JAX, PyTorch and TensorFlow.

This is the interface. `jax.py`, `torch.py` and `tensorflow.py` define its functions by the same names, and only the one
for the backend of Keras is imported. `export/` writes files with the framework that a file belongs to.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

from keras_residual._backend.choice import BackendChoice, choose
from keras_residual._types import Tensor, Tree

CHOICE: BackendChoice | None = None if "keras" in sys.modules else choose(os.environ)
"""The backend that was chosen here, before Keras was imported; None if Keras had already been imported."""

if CHOICE is not None:
    # For Keras, and for child processes.
    os.environ["KERAS_BACKEND"] = CHOICE.backend

import keras  # noqa: E402 - reads the variable

from keras_residual._backend.loops import Body, ReversiblePass, unroll  # noqa: E402

BACKEND = keras.backend.backend()

if TYPE_CHECKING or BACKEND == "jax":
    from keras_residual._backend import jax as _on
elif BACKEND == "torch":
    from keras_residual._backend import torch as _on
elif BACKEND == "tensorflow":
    from keras_residual._backend import tensorflow as _on
else:
    raise ImportError(
        f"keras-residual runs on the jax, torch and tensorflow backends of Keras, but the backend is {BACKEND!r}. "
        "Set the environment variable KERAS_BACKEND to one of them before Python starts."
    )


__all__ = [
    "BACKEND",
    "CHOICE",
    "DIFFERENTIATES_FUNCTIONS",
    "HAS_BATCH_NORM",
    "SCAN_FROM",
    "VERSION",
    "Body",
    "ReversiblePass",
    "as_tensor",
    "compilation_cache",
    "compiled",
    "convolve",
    "forget_parameters",
    "has_hooks",
    "input_gradient",
    "is_eager_torch",
    "keeping_random_state",
    "map_slices",
    "max_pool",
    "name_optimizers",
    "normalize",
    "normalize_by_batch",
    "outside_of_programs",
    "probed_gradients",
    "random_state",
    "recompute",
    "recompute_cheap",
    "register_parameters",
    "relu_in_place",
    "reversible",
    "scale_with_other_gradient",
    "scan",
    "set_random_state",
    "snapshot",
    "unroll",
    "update_variables",
    "vjp",
    "with_shape_of",
]

DIFFERENTIATES_FUNCTIONS: bool = BACKEND == "jax"
"""Whether gradients are taken of a function of the weights, rather than at the values that variables hold."""

outside_of_programs = _on.outside_of_programs
"""Returns a scope in which variables have values, even while TensorFlow traces a program."""
VERSION: str = str(_on.VERSION)
"""Version of the framework, as it reports it: TensorFlow comes in packages of several names."""

SCAN_FROM: int | None = _on.SCAN_FROM
"""Number of blocks from which compiling one body is faster than compiling all; None where nothing is compiled."""


def scale_with_other_gradient(x: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """Returns `x * forward`, whose gradient with respect to `x` is scaled by `backward` instead of `forward`.

    Args:
        x: Tensor of any shape.
        forward: Tensor that broadcasts to the shape of `x`. Its own gradient is 0.
        backward: Tensor that broadcasts to the shape of `x`. Its own gradient is 0.
    """
    return _on.scale_with_other_gradient(x, keras.ops.cast(forward, x.dtype), keras.ops.cast(backward, x.dtype))


def input_gradient(function: Callable[[Any], Any], x: Tensor) -> Tensor:
    """Returns the gradient of `function(x)` with respect to `x`, a tensor of the shape of `x`.

    Weights that the function assigns to, such as a batch norm's moving averages in training, keep their values.

    Args:
        function: Takes a tensor and returns a scalar tensor, by operations of Keras.
        x: Array or tensor of any shape, of a float type.
    """
    # Assignments go to the scope, which is dropped.
    with keras.StatelessScope():
        return _on.input_gradient(function, keras.ops.convert_to_tensor(x))


def probed_gradients(
    function: Callable[[Callable[..., Any], Any], tuple[Any, Any]],
    finish: Callable[[Any, list[Any], list[Any]], Any],
    variables: Sequence[keras.Variable],
    others: Sequence[keras.Variable],
) -> Callable[[Any], Any]:
    """Returns a program of a forward pass and of gradients at places within it, from `given` to what `finish` returns.

    It is compiled at its first call, and reads the variables' current values at each call. Assignments to variables,
    such as moving averages and seed states, are dropped. Arguments must have the same structure, shapes and dtypes at
    each call.

    Args:
        function: `(probe, given) -> (loss, outputs)`: a scalar, and a structure of tensors. `probe(shape, dtype)`
            returns zeros, to be added to a tensor whose gradient is wanted. The function may be run more than once,
            and must request the same probes each time.
        finish: `(outputs, probe_gradients, variable_gradients) -> structure of tensors`; only these leave the program.
        variables: Float variables whose gradients are wanted.
        others: The other variables that the function reads.
    """
    return _on.probed_gradients(function, finish, list(variables), list(others))


def compiled(function: Callable[[Any], Any], variables: Sequence[keras.Variable]) -> Callable[[Any], Any]:
    """Returns `function` as one program where the backend compiles; its assignments are dropped.

    Args:
        function: From a structure of tensors to a structure of tensors.
        variables: The variables that it reads.
    """
    return _on.compiled(function, list(variables))


@contextmanager
def keeping_random_state() -> Iterator[None]:
    """Restores the backend's own random number generator, if it has one, on exit."""
    with _on.keeping_random_state():
        yield


def random_state() -> list[Any]:
    """Returns the states of the backend's own random number generators, if it has any, as arrays."""
    return _on.random_state()


def set_random_state(states: Sequence[Any]) -> None:
    """Sets the backend's own random number generators to the states that `random_state` returned."""
    _on.set_random_state(states)


def map_slices(function: Callable[[Any], Any], x: Tensor) -> Tensor:
    """Returns the stacked results of `function` for each slice of `x` along its leading axis.

    Args:
        function: From a tensor to a tensor, by operations of Keras.
        x: Tensor of rank 1 or more.
    """
    return _on.map_slices(function, x)


def name_optimizers() -> None:
    """Makes Keras save optimizers by their public names, so that a compiled model loads on another backend."""
    _on.name_optimizers()


def scan(body: Body, carry: Tree, xs: Tree, *, reverse: bool = False) -> tuple[Any, Any]:
    """Runs `body` once for each slice of `xs`, compiled once where the backend can.

    Args:
        body: `(carry, slices, None) -> (carry, given_off)`, a function without side effects of structures of tensors.
        carry: Structure of tensors, whose shapes and dtypes the body keeps.
        xs: Tuple of structures of tensors, each with the number of runs as its leading axis.
        reverse: Whether to go from the last slice to the first.

    Returns:
        The last carry, and the outputs of the runs, stacked along a leading axis.
    """
    return _on.scan(body, carry, xs, reverse=reverse)


def recompute(function: Callable[..., Any], *, in_loop: bool = False, held: Sequence[Any] = ()) -> Callable[..., Any]:
    """Returns `function`, storing only its arguments for the backward pass: the rest is recomputed there.

    Args:
        function: From structures of tensors to a structure of tensors, without side effects.
        in_loop: Whether it is called in the body of a `scan`.
        held: Tensors that the function uses without taking them as arguments, and whose gradient may be wanted.
    """
    return _on.recompute(function, in_loop=in_loop, held=held)


def recompute_cheap(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `function`, recomputing for the gradient what is cheap to compute, where the backend can choose.

    Args:
        function: `(carry, weights, others) -> structure of tensors`, called in the body of a `scan`: structures of
            tensors, the last mostly without gradients.
    """
    return _on.recompute_cheap(function)


def as_tensor(array: Any) -> Tensor:
    """Returns an array as a tensor of its dtype, without a program compiled for its shape.

    Args:
        array: A NumPy array that is not written to afterwards.
    """
    return _on.as_tensor(array)


def register_parameters(layer: keras.Layer) -> None:
    """Registers with the backend the variables of a layer and its sub-layers that were built in a stateless scope."""
    _on.register_parameters(layer)


def forget_parameters(layer: keras.Layer) -> None:
    """Deletes the backend's list of a layer's own variables, which is outdated once the layer has gained or lost some.

    It is made again when asked for, or by `register_parameters`.
    """
    _on.forget_parameters(layer)


def with_shape_of(like: Tensor, x: Tensor) -> Tensor:
    """Returns `x`; a program that knows sizes only at run time fails if its shape differs from that of `like`."""
    return _on.with_shape_of(like, x)


def snapshot(variable: keras.Variable) -> Tensor:
    """Returns the value of a variable, as a tensor that later assignments do not change."""
    return _on.snapshot(variable)


def update_variables(model: keras.Model) -> None:
    """Inside `fit`, writes the values after the latest step back to the model's variables."""
    _on.update_variables(model)


def vjp(function: Callable[..., Any], *arguments: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """Returns the outputs of `function`, and the function that takes their cotangents to those of the arguments.

    Args:
        function: From structures of float tensors to a structure of float tensors.
        arguments: Structures of float tensors.
    """
    return _on.vjp(function, *arguments)


def reversible(program: ReversiblePass, rows: Tree, weights: Tree, others: Tree) -> tuple[Any, Any, Any]:
    """Runs a reversible stack, whose memory does not grow with depth: the backward pass needs only its last state.

    Args:
        program: The stack.
        rows: Structure of float tensors, the input of the first block.
        weights: Structures of float tensors, a part for each block, as the program's loop takes them.
        others: The same, of tensors without gradients.

    Returns:
        The rows after the last block, and the loss and the updates of each block; updates have no gradient.
    """
    return _on.reversible(program, rows, weights, others)


def compilation_cache() -> ModuleType | None:
    """Returns the module that sets the backend's cache of compiled programs, or None where it has none."""
    return _on.compilation_cache()


# --- Operations on feature maps --------------------------------------------------------------------------------------

HAS_BATCH_NORM: bool = _on.HAS_BATCH_NORM
"""Whether `normalize` and `normalize_by_batch` can be called: the backend has a batch norm of one operation."""


def convolve(x: Tensor, kernel: Tensor, *, strides: int, dilation: int, data_format: str) -> Tensor:
    """Returns the convolution of maps with `dilation * (width // 2)` zeros on each side.

    On PyTorch maps are not copied, and without gradients kernels are not either. For that, the memory of a kernel given
    as a variable is reordered when gradients are switched on or off; its shape and values stay the same.

    Args:
        x: Tensor of shape `(batch, height, width, channels)`, or channels first.
        kernel: Tensor or variable of shape `(width, width, channels of a group, filters)`, of the dtype of `x` and of
            odd width.
        strides: Stride on both axes, at least 1.
        dilation: Dilation, at least 1.
        data_format: `"channels_last"` or `"channels_first"`.
    """
    return _on.convolve(x, kernel, strides=strides, dilation=dilation, data_format=data_format)


def max_pool(x: Tensor, *, width: int, strides: int, data_format: str) -> Tensor:
    """Returns the maxima over windows, with `width // 2` of padding on each side that never wins.

    Args:
        x: Tensor of shape `(batch, height, width, channels)`, or channels first.
        width: Width of the windows, at least 1.
        strides: Step between windows, at least 1.
        data_format: `"channels_last"` or `"channels_first"`.
    """
    return _on.max_pool(x, width=width, strides=strides, data_format=data_format)


def normalize(
    x: Tensor, mean: Tensor, variance: Tensor, *, gamma: Tensor, beta: Tensor, epsilon: float, axis: int
) -> Tensor:
    """Returns `gamma * (x - mean) / sqrt(variance + epsilon) + beta`, computed in float32 at least.

    Args:
        x: Tensor of rank 2 or more.
        mean: Variable of shape `(channels,)`.
        variance: Variable of shape `(channels,)`.
        gamma: Variable of shape `(channels,)`, or None for 1.
        beta: Variable of shape `(channels,)`, or None for 0.
        epsilon: Added to the variance.
        axis: Axis of the channels, 1 or -1.
    """
    return _on.normalize(x, mean, variance, gamma=gamma, beta=beta, epsilon=epsilon, axis=axis)


def normalize_by_batch(x: Tensor, *, gamma: Tensor, beta: Tensor, epsilon: float, axis: int) -> tuple[Any, Any, Any]:
    """Returns `x` normalized by its own mean and variance, and these two, which have no gradient.

    Args:
        x: Tensor of rank 2 or more.
        gamma: Variable of shape `(channels,)`, or None for 1.
        beta: Variable of shape `(channels,)`, or None for 0.
        epsilon: Added to the variance.
        axis: Axis of the channels, 1 or -1.
    """
    return _on.normalize_by_batch(x, gamma=gamma, beta=beta, epsilon=epsilon, axis=axis)


def is_eager_torch(x: Tensor) -> bool:
    """Returns whether `x` is a PyTorch tensor whose operations run at once, and not a stand-in such as a traced one."""
    return _on.is_eager_torch(x)


def has_hooks(layer: keras.Layer) -> bool:
    """Returns whether the backend has hooks on calls of the layer."""
    return _on.has_hooks(layer)


def relu_in_place(x: Tensor) -> Tensor:
    """Returns `max(x, 0)`, in place where no gradient can be asked for; nothing else may refer to `x`."""
    return _on.relu_in_place(x)
