"""The interface of `keras_residual._backend`, which describes it, on JAX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from types import ModuleType
from typing import Any

import jax
import keras

from keras_residual._backend import maps
from keras_residual._backend.fast import jax_recompute
from keras_residual._backend.fast.jax_convolution import canonical_convolutions
from keras_residual._backend.loops import Body, ReversiblePass
from keras_residual._types import Tensor, Tree

VERSION = jax.__version__
SCAN_FROM = 16

# Operations on feature maps.
HAS_BATCH_NORM = maps.HAS_BATCH_NORM
convolve, max_pool = maps.convolve, maps.max_pool
normalize, normalize_by_batch = maps.normalize, maps.normalize_by_batch
is_eager_torch, has_hooks, relu_in_place = maps.is_eager_torch, maps.has_hooks, maps.relu_in_place


def _scale_alone(x: Tensor, forward: Tensor, backward: Tensor) -> Any:
    del backward
    return x * forward


def _scale_forward(x: Tensor, forward: Tensor, backward: Tensor) -> tuple[Any, tuple[Any, Any]]:
    return x * forward, (forward, backward)


def _scale_backward(factors: tuple[Any, Any], upstream: Tensor) -> tuple[Any, Any, Any]:
    forward, backward = factors
    return upstream * backward, jax.numpy.zeros_like(forward), jax.numpy.zeros_like(backward)


scale_with_other_gradient = jax.custom_vjp(_scale_alone)
scale_with_other_gradient.defvjp(_scale_forward, _scale_backward)


def input_gradient(function: Callable[[Any], Any], x: Tensor) -> Any:
    """Returns the gradient of a scalar function."""
    return jax.grad(function)(x)


def register_parameters(layer: Any) -> None:
    """Does nothing: the backend has no modules."""
    del layer


def forget_parameters(layer: Any) -> None:
    """Does nothing: the backend has no modules."""
    del layer


def with_shape_of(like: Tensor, x: Tensor) -> Tensor:
    """Returns `x`: all shapes are known when an operation is called."""
    del like
    return x


as_tensor = jax.device_put  # `jax.numpy.asarray`, which Keras takes, compiles a program a shape


def snapshot(variable: Any) -> Tensor:
    """Returns the variable's value, as later assignments do not change it."""
    return variable.value


def update_variables(model: Any) -> None:
    """Gives the variables the values that `fit` carries from step to step."""
    model.jax_state_sync()


def vjp(function: Callable[..., Any], *arguments: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """Returns the outputs and the function from their cotangents to those of the arguments."""
    return jax.vjp(function, *arguments)


def probed_gradients(
    function: Callable[..., Any], finish: Callable[..., Any], variables: list[Any], others: list[Any]
) -> Callable[[Any], Any]:
    """Returns the program of the forward pass, the gradients of probes and variables, and `finish`."""
    asked: list[Any] = []
    places: list[Any] | None = None

    def run(values: Tensor, probes: Any, rest: Any, given: Tree) -> Any:
        asked.clear()

        def probe(shape: Any, dtype: str) -> Any:
            asked.append(jax.ShapeDtypeStruct(tuple(shape), dtype))
            return jax.numpy.zeros(shape, dtype) if probes is None else probes[len(asked) - 1]

        pairs = [*zip(variables, values, strict=True), *zip(others, rest, strict=True)]
        with keras.StatelessScope(state_mapping=pairs):
            return function(probe, given)

    @jax.jit
    def program(values: Tensor, rest: Any, given: Tree) -> Any:
        probes = [jax.numpy.zeros(one.shape, one.dtype) for one in places or ()]
        by_value, outputs = jax.grad(run, argnums=(0, 1), has_aux=True)(values, probes, rest, given)
        return finish(outputs, by_value[1], by_value[0])

    def call(given: Tree) -> Any:
        nonlocal places
        values, rest = ([variable.value for variable in part] for part in (variables, others))
        if places is None:
            # The shapes of the probes are those of tensors within the function: known once it has been traced.
            jax.eval_shape(lambda values, rest, given: run(values, None, rest, given), values, rest, given)
            places = list(asked)
        return program(values, rest, given)

    return call


def compiled(function: Callable[[Any], Any], variables: list[Any]) -> Callable[[Any], Any]:
    """Returns the function as a program that reads the variables."""

    @jax.jit
    def program(values: Tensor, given: Tree) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function(given)

    return lambda given: program([variable.value for variable in variables], given)


def map_slices(function: Callable[[Any], Any], x: Tensor) -> Tensor:
    """Returns the results for each slice, stacked."""
    return jax.vmap(function)(x)


def name_optimizers() -> None:
    """Does nothing: here Keras saves optimizers by their public names anyway."""


outside_of_programs = nullcontext  # programs are traced with what is given
keeping_random_state = nullcontext  # JAX has no generator besides Keras's own


def random_state() -> list[Any]:
    """Returns nothing: there are no generators besides Keras's own."""
    return []


def set_random_state(states: Sequence[Any]) -> None:
    """Does nothing, as there are none."""
    del states


def scan(body: Body, carry: Tree, xs: Tree, *, reverse: bool = False) -> tuple[Any, Any]:
    """Runs `body` over the leading axis of `xs`, compiled once."""

    def in_loop(carry: Tree, x: Tensor) -> tuple[Any, Any]:
        with canonical_convolutions():
            return body(carry, x, None)

    return jax.lax.scan(in_loop, carry, xs, reverse=reverse)


def recompute(function: Callable[..., Any], *, in_loop: bool, held: Sequence[Any]) -> Callable[..., Any]:
    """Returns the function, keeping only its arguments for the gradient."""
    del held  # JAX follows them by itself
    # In a loop nothing can be merged with the forward pass, and the barrier against it costs time.
    return jax.checkpoint(function, prevent_cse=not in_loop)


recompute_cheap = jax_recompute.recompute_cheap


def reversible(program: ReversiblePass, rows: Tree, weights: Tree, others: Tree) -> tuple[Any, Any, Any]:
    """Runs a stack without keeping activations."""

    def outputs_of(state: Tree, losses: Any, updates: Any) -> tuple[Any, Any, Any]:
        return program.leave(state), losses, updates

    @jax.custom_vjp
    def apply(rows: Tree, weights: Tree, others: Tree) -> tuple[Any, Any, Any]:
        return outputs_of(*program.run(rows, weights, others))

    def apply_forward(rows: Tree, weights: Tree, others: Tree) -> tuple[Any, Any]:
        state, losses, updates = program.run(rows, weights, others)
        return outputs_of(state, losses, updates), (state, weights, others)

    def apply_backward(kept: Any, upstream: Tensor) -> tuple[Any, Any, None]:
        rows_bar, losses_bar, _ = upstream
        state, weights, others = kept
        return *program.run_backward(state, rows_bar, weights, others, losses_bar), None

    apply.defvjp(apply_forward, apply_backward)
    return apply(rows, weights, others)


def compilation_cache() -> ModuleType:
    """Returns the module that sets JAX's cache."""
    from keras_residual._backend.fast import jax_compilation_cache  # loads what `import jax` does not

    return jax_compilation_cache
