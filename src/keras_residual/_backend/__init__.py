"""What Keras has no operation for, or a slow one; the one folder that names JAX, PyTorch and TensorFlow.

This is the interface. `jax.py`, `torch.py` and `tensorflow.py` have its functions by the same names, and the one of the
backend that Keras runs on is imported. `export/` makes files by the framework that a file belongs to.
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
"""The backend that was chosen here, before Keras was imported; None where Keras had been imported before."""

if CHOICE is not None:
    # For Keras, and for the processes that this one starts.
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
    "HAS_BATCH_NORM",
    "SCAN_FROM",
    "VERSION",
    "Body",
    "ReversiblePass",
    "as_tensor",
    "checkpoint",
    "compilation_cache",
    "compiled",
    "convolve",
    "has_hooks",
    "input_gradient",
    "is_eager",
    "keeping_random_state",
    "map_slices",
    "max_pool",
    "name_optimizers",
    "normalize",
    "normalize_by_batch",
    "outside_of_programs",
    "probed_gradients",
    "random_state",
    "recompute_cheap",
    "register_parameters",
    "relu_in_place",
    "reversible",
    "run_compiled",
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
"""Whether the gradient is that of a function of the weights, and not asked for at what the variables hold."""

outside_of_programs = _on.outside_of_programs
"""Returns a scope in which variables have values, also where a program is traced that TensorFlow keeps."""
VERSION: str = str(_on.VERSION)
"""That of the framework, as it says itself: TensorFlow comes in packages of several names."""

SCAN_FROM: int | None = _on.SCAN_FROM
"""Number of blocks from which one compiled body is quicker to compile than all of them; None where none is compiled."""


def scale_with_other_gradient(x: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """Returns `x * forward`, whose gradient with respect to `x` is scaled by `backward` instead of `forward`.

    Args:
        x: Tensor of any shape.
        forward: Tensor that broadcasts to the shape of `x`. Its own gradient is 0.
        backward: Tensor that broadcasts to the shape of `x`. Its own gradient is 0.
    """
    return _on.scale(x, keras.ops.cast(forward, x.dtype), keras.ops.cast(backward, x.dtype))


def input_gradient(function: Callable[[Any], Any], x: Tensor) -> Tensor:
    """Returns the gradient of `function(x)` with respect to `x`, a tensor of the shape of `x`.

    Weights that the function assigns, such as a batch norm's moving averages in training, keep their values.

    Args:
        function: Takes a tensor and returns a scalar tensor, by operations of Keras.
        x: Array or tensor of any shape, of a float type.
    """
    # The scope takes what is assigned and is dropped.
    with keras.StatelessScope():
        return _on.gradient(function, keras.ops.convert_to_tensor(x))


def probed_gradients(
    function: Callable[[Callable[..., Any], Any], tuple[Any, Any]],
    finish: Callable[[Any, list[Any], list[Any]], Any],
    variables: Sequence[keras.Variable],
    others: Sequence[keras.Variable],
) -> Callable[[Any], Any]:
    """Returns a program of a forward pass and of the gradients at places within it: `given` to what `finish` makes.

    It is compiled when it is first called, and reads the values that the variables have at each call. What the function
    assigns to variables, such as moving averages and the states of seeds, is dropped. What is given must have the same
    structure, shapes and dtypes at each call.

    Args:
        function: `(probe, given) -> (loss, outputs)`: a scalar, and a structure of tensors. `probe(shape, dtype)`
            returns zeros, to be added to a tensor where the gradient with respect to it is asked for. It may be run
            more than once, and must ask for the same probes each time.
        finish: `(outputs, probe_gradients, variable_gradients) -> structure of tensors`; no other leaves the program.
        variables: Float variables whose gradients are asked for.
        others: The other variables that the function reads.
    """
    return _on.probed_gradients(function, finish, list(variables), list(others))


def compiled(function: Callable[[Any], Any], variables: Sequence[keras.Variable]) -> Callable[[Any], Any]:
    """Returns `function` as one program where the backend compiles; what it assigns is dropped.

    Args:
        function: From a structure of tensors to a structure of tensors.
        variables: The variables that it reads.
    """
    return _on.compiled(function, list(variables))


def run_compiled(function: Callable[[Any], Any], variables: Sequence[keras.Variable], given: Tree) -> Any:
    """Returns `function(given)`, run once as a program of `compiled`.

    Args:
        function: From a structure of tensors to a structure of tensors.
        variables: The variables that it reads.
        given: Structure of tensors.
    """
    return compiled(function, variables)(given)


@contextmanager
def keeping_random_state() -> Iterator[None]:
    """Lets the backend's own generator of random numbers, where it has one, come out as it went in."""
    with _on.keeping_random_state():
        yield


def random_state() -> list[Any]:
    """Returns the states of the backend's own generators of random numbers, where it has some, as arrays."""
    return _on.random_state()


def set_random_state(states: Sequence[Any]) -> None:
    """Puts the backend's own generators of random numbers into the states that `random_state` returned."""
    _on.set_random_state(states)


def map_slices(function: Callable[[Any], Any], x: Tensor) -> Tensor:
    """Returns what `function` makes of each slice of `x` along its leading axis, stacked.

    Args:
        function: From a tensor to a tensor, by operations of Keras.
        x: Tensor of rank 1 or more.
    """
    return _on.map_slices(function, x)


def name_optimizers() -> None:
    """Has Keras save optimizers by their public names, so that a model that was compiled loads on another backend."""
    _on.name_optimizers()


def scan(body: Body, carry: Tree, xs: Tree, *, reverse: bool = False) -> tuple[Any, Any]:
    """Runs `body` once for each slice of `xs`, compiled once where the backend can.

    Args:
        body: `(carry, slices, None) -> (carry, given_off)`, a function without side effects of structures of tensors.
        carry: Structure of tensors, whose shapes and dtypes the body keeps.
        xs: Tuple of structures of tensors, each with the number of runs as its leading axis.
        reverse: Whether to go from the last slice to the first.

    Returns:
        What was carried to the end, and what the runs gave off, stacked along a leading axis.
    """
    return _on.scan(body, carry, xs, reverse=reverse)


def checkpoint(function: Callable[..., Any], *, in_loop: bool = False, held: Sequence[Any] = ()) -> Callable[..., Any]:
    """Returns `function`, of which only the arguments are kept for the gradient: the rest is recomputed.

    Args:
        function: From structures of tensors to a structure of tensors, without side effects.
        in_loop: Whether it is called in the body of a `scan`.
        held: Tensors that the function uses and that are no arguments of it, of which a gradient may be asked for.
    """
    return _on.checkpoint(function, in_loop=in_loop, held=held)


def recompute_cheap(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `function`, of which what is cheap to compute is not kept for the gradient, where the backend can choose.

    Args:
        function: `(carry, weights, others) -> structure of tensors`, called in the body of a `scan`: structures of
            tensors, of which the last has mostly no gradient.
    """
    return _on.recompute_cheap(function)


def as_tensor(array: Any) -> Tensor:
    """Returns an array as a tensor of its dtype, without a program compiled for its shape.

    Args:
        array: A NumPy array that nobody writes to afterwards.
    """
    return _on.as_tensor(array)


def register_parameters(layer: keras.Layer) -> None:
    """Lets the backend know the variables of a layer, and of all in it, that were built in a stateless scope."""
    _on.register_parameters(layer)


def with_shape_of(like: Tensor, x: Tensor) -> Tensor:
    """Returns `x`; a program that learns sizes only as it runs fails there where it has another shape than `like`."""
    return _on.with_shape_of(like, x)


def snapshot(variable: keras.Variable) -> Tensor:
    """Returns the value of a variable, as a tensor that stays what it is when the variable is assigned to."""
    return _on.snapshot(variable)


def update_variables(model: keras.Model) -> None:
    """Gives the variables of a model, within its `fit`, the values that they have after the last step."""
    _on.update_variables(model)


def vjp(function: Callable[..., Any], *arguments: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """Returns the outputs of `function`, and the function that takes their cotangents to those of the arguments.

    Args:
        function: From structures of float tensors to a structure of float tensors.
        arguments: Structures of float tensors.
    """
    return _on.vjp(function, *arguments)


def reversible(program: ReversiblePass, rows: Tree, weights: Tree, others: Tree) -> tuple[Any, Any, Any]:
    """Runs a reversible stack: its memory does not grow with depth, since the backward pass needs its last state only.

    Args:
        program: The stack.
        rows: Structure of float tensors, what goes into the first block.
        weights: Structures of float tensors, a part for each block, as the program's loop takes them.
        others: The same of tensors that have no gradient.

    Returns:
        The rows after the last block, the loss of each block, and the updates of each, which have no gradient.
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

    On PyTorch the maps are not copied, and without gradients the kernel is not either. For that the memory of a kernel
    given as a variable is reordered when gradients are switched on or off; its shape and its values stay as they are.

    Args:
        x: Tensor of shape `(batch, height, width, channels)`, or channels first.
        kernel: Tensor or variable of shape `(width, width, channels of a group, filters)`, of the dtype of `x` and of
            odd width.
        strides: Stride on both axes, at least 1.
        dilation: Distance of neighbouring taps, at least 1.
        data_format: `"channels_last"` or `"channels_first"`.
    """
    return _on.convolve(x, kernel, strides=strides, dilation=dilation, data_format=data_format)


def max_pool(x: Tensor, *, width: int, strides: int, data_format: str) -> Tensor:
    """Returns the maxima over windows that reach over each edge by `width // 2`, where nothing counts.

    Args:
        x: Tensor of shape `(batch, height, width, channels)`, or channels first.
        width: Width of the windows, at least 1.
        strides: Distance of the windows, at least 1.
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


def is_eager(x: Tensor) -> bool:
    """Returns whether `x` is a tensor of PyTorch, whose operations run one by one, and nothing in its place."""
    return _on.is_eager(x)


def has_hooks(layer: keras.Layer) -> bool:
    """Returns whether something of the backend listens to calls of the layer."""
    return _on.has_hooks(layer)


def relu_in_place(x: Tensor) -> Tensor:
    """Returns `max(x, 0)` of a tensor that nobody else has: in its memory, where no gradient can be asked for."""
    return _on.relu_in_place(x)
