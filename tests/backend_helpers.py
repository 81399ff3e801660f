"""Gradients on each backend, for tests: the one test module that names JAX, PyTorch and TensorFlow."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

MOST_MAPPINGS = 20_000


def gradients(
    function: Callable[..., Any], arrays: Sequence[np.ndarray], variables: Sequence[Any] = (), *, compiled: bool = False
) -> tuple[list[np.ndarray | None], list[np.ndarray | None]]:
    """Returns the gradients of `sum(w * function(*arrays))` with respect to the arrays and the variables.

    `w` are fixed weights, so that no symmetry of a function hides a gradient. None stands for a gradient that is not
    connected; JAX gives zeros there. `compiled` is for JAX: whether all is one program, as in training, or an operation
    at a time, which rounds in other places.
    """
    arrays = [np.asarray(array) for array in arrays]
    if keras.backend.backend() == "jax":
        return _jax(function, arrays, list(variables), compiled=compiled)
    return _BY_BACKEND[keras.backend.backend()](function, arrays, list(variables))


def gradients_of_penalty(
    function: Callable[[Any], Any], array: np.ndarray, variables: Sequence[Any]
) -> list[np.ndarray]:
    """Returns the gradients of `|g|^2`, where `g` is the gradient of `sum(w * function(x))` at the array.

    They are those with respect to the array and to the variables, zeros where one is not connected; `w` are fixed.
    """
    found = _PENALTIES[keras.backend.backend()](function, array, list(variables))
    shapes = [array.shape, *(tuple(variable.shape) for variable in variables)]
    return [np.zeros(shape, "float32") if g is None else np.asarray(g) for g, shape in zip(found, shapes, strict=True)]


@contextmanager
def double_precision() -> Iterator[None]:
    """Layers that are made inside have weights in double precision and compute in it."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        with _jax_doubles() if keras.backend.backend() == "jax" else nullcontext():
            yield
    finally:
        keras.config.set_dtype_policy(policy)


def _jax_doubles() -> Any:
    import jax

    return jax.enable_x64(True)


@contextmanager
def quick_compilation() -> Iterator[None]:
    """Makes JAX leave most of the optimisation of its programs out."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def drop_compiled_programs() -> None:
    """Lets go of what JAX has compiled, where that is much.

    Linux gives a process some 65,000 mappings of memory. A program on the CPU takes several, JAX keeps every program,
    and XLA does not survive the end of them.
    """
    maps = Path("/proc/self/maps")
    if keras.backend.backend() != "jax" or not maps.exists() or maps.read_bytes().count(b"\n") < MOST_MAPPINGS:
        return
    import jax

    gc.collect()
    jax.clear_caches()
    gc.collect()


def weighted_sum(y: Any) -> Any:
    """Returns a scalar in float32 that weighs each element of `y` in its own way."""
    weights = np.random.default_rng(99).uniform(0.5, 1.5, size=tuple(y.shape)).astype("float32")
    return ops.sum(ops.multiply(ops.cast(y, "float32"), weights))


def _jax(function: Any, arrays: list[np.ndarray], variables: list[Any], *, compiled: bool) -> Any:
    import jax

    def loss(arrays: Any, values: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return weighted_sum(function(*arrays))

    values = [variable.value for variable in variables]
    gradient = jax.grad(loss, argnums=(0, 1))
    gradient = jax.jit(gradient) if compiled else gradient
    by_array, by_variable = gradient([jax.numpy.asarray(array) for array in arrays], values)
    return [np.asarray(g) for g in by_array], [np.asarray(g) for g in by_variable]


def _torch(function: Any, arrays: list[np.ndarray], variables: list[Any]) -> Any:
    import torch

    inputs = [torch.tensor(array, requires_grad=True) for array in arrays]
    targets = [*inputs, *(variable.value for variable in variables)]
    loss = weighted_sum(function(*inputs))
    found = torch.autograd.grad(loss, targets, allow_unused=True) if loss.requires_grad else [None] * len(targets)
    found = [None if g is None else g.detach().cpu().numpy() for g in found]
    return found[: len(inputs)], found[len(inputs) :]


def _tensorflow(function: Any, arrays: list[np.ndarray], variables: list[Any]) -> Any:
    import tensorflow as tf

    inputs = [tf.convert_to_tensor(array) for array in arrays]
    targets = [*inputs, *(variable.value for variable in variables)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = weighted_sum(function(*inputs))
    found = [None if g is None else np.asarray(tf.convert_to_tensor(g)) for g in tape.gradient(loss, targets)]
    return found[: len(inputs)], found[len(inputs) :]


def _jax_penalty(function: Any, array: np.ndarray, variables: list[Any]) -> Any:
    import jax

    def loss(x: Any, values: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return weighted_sum(function(x))

    def penalty(x: Any, values: Any) -> Any:
        return ops.sum(ops.square(jax.grad(loss)(x, values)))

    by_array, by_variable = jax.jit(jax.grad(penalty, argnums=(0, 1)))(array, [v.value for v in variables])
    return [by_array, *by_variable]


def _torch_penalty(function: Any, array: np.ndarray, variables: list[Any]) -> Any:
    import torch

    x = torch.tensor(array, requires_grad=True)
    (gradient,) = torch.autograd.grad(weighted_sum(function(x)), x, create_graph=True)
    targets = [x, *(variable.value for variable in variables)]
    found = torch.autograd.grad(torch.sum(gradient**2), targets, allow_unused=True)
    return [None if g is None else g.detach().cpu().numpy() for g in found]


def _tensorflow_penalty(function: Any, array: np.ndarray, variables: list[Any]) -> Any:
    import tensorflow as tf

    x = tf.convert_to_tensor(array)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            loss = weighted_sum(function(x))
        penalty = tf.reduce_sum(inner.gradient(loss, x) ** 2)
    found = outer.gradient(penalty, [x, *(variable.value for variable in variables)])
    return [None if g is None else np.asarray(tf.convert_to_tensor(g)) for g in found]


def forward_derivative(function: Callable[[Any], Any], array: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Returns the derivative of a scalar function at the array in a direction, in forward mode."""
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.jvp(function, (jax.numpy.asarray(array),), (jax.numpy.asarray(direction),))[1])
    if keras.backend.backend() == "torch":
        import torch

        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(torch.tensor(array), torch.tensor(direction))
            return torch.autograd.forward_ad.unpack_dual(function(dual)).tangent.detach().numpy()
    import tensorflow as tf

    x = tf.convert_to_tensor(array)
    with tf.autodiff.ForwardAccumulator(x, tf.convert_to_tensor(direction)) as accumulator:
        y = function(x)
    return np.asarray(accumulator.jvp(y))


_PENALTIES = {"jax": _jax_penalty, "torch": _torch_penalty, "tensorflow": _tensorflow_penalty}
_BY_BACKEND = {"torch": _torch, "tensorflow": _tensorflow}
