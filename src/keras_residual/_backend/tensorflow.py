"""The interface of `keras_residual._backend`, which describes it, on TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import keras
import tensorflow as tf

from keras_residual._backend import maps
from keras_residual._backend.loops import Body, ReversiblePass, slices, stacked, unroll
from keras_residual._types import Tensor, Tree

VERSION = tf.__version__
SCAN_FROM = 24

# Operations on feature maps.
HAS_BATCH_NORM = maps.HAS_BATCH_NORM
convolve, max_pool = maps.convolve, maps.max_pool
normalize, normalize_by_batch = maps.normalize, maps.normalize_by_batch
is_eager_torch, has_hooks, relu_in_place = maps.is_eager_torch, maps.has_hooks, maps.relu_in_place


def _scale_with_gradient(x: Tensor, forward: Tensor, backward: Tensor) -> tuple[Any, Any]:
    def gradient(upstream: Tensor) -> tuple[Any, Any, Any]:
        return upstream * backward, tf.zeros_like(forward), tf.zeros_like(backward)

    return x * forward, gradient


scale_with_other_gradient = tf.custom_gradient(_scale_with_gradient)


def input_gradient(function: Callable[[Any], Any], x: Tensor) -> Any:
    """Returns the gradient of a scalar function."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x)


def register_parameters(layer: Any) -> None:
    """Does nothing: the backend has no modules."""
    del layer


def forget_parameters(layer: Any) -> None:
    """Does nothing: the backend has no modules."""
    del layer


def with_shape_of(like: Tensor, x: Tensor) -> Tensor:
    """Returns `x`, once the program has seen that it has the shape of `like`."""
    shape = tf.shape(like)
    # An assertion is not compiled by XLA, where the reshape raises; elsewhere a reshape to one unknown size may be
    # simplified to one that takes any size.
    with tf.control_dependencies([tf.debugging.assert_equal(tf.shape(x), shape)]):
        return tf.reshape(x, shape)


as_tensor = keras.ops.convert_to_tensor


def snapshot(variable: Any) -> Tensor:
    """Returns the variable's value, as later assignments do not change it."""
    return tf.convert_to_tensor(variable.value)


def update_variables(model: Any) -> None:
    """Does nothing: each step assigns to them."""
    del model


def vjp(function: Callable[..., Any], *arguments: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """Returns the outputs and the function from their cotangents to those of the arguments."""
    flat = keras.tree.flatten(arguments)
    with tf.GradientTape() as tape:
        tape.watch(flat)
        outputs = function(*arguments)

    def pullback(cotangents: Tree) -> Any:
        found = _gradients(tape, keras.tree.flatten(outputs), flat, keras.tree.flatten(cotangents))
        return keras.tree.pack_sequence_as(arguments, found)

    return outputs, pullback


def probed_gradients(
    function: Callable[..., Any], finish: Callable[..., Any], variables: list[Any], others: list[Any]
) -> Callable[[Any], Any]:
    """Returns the program of the forward pass, the gradients of probes and variables, and `finish`."""
    del others
    values = [variable.value for variable in variables]

    @tf.function(autograph=False)
    def program(given: Tree) -> Any:
        probes: list[Any] = []
        with tf.GradientTape() as tape:

            def probe(shape: Any, dtype: str) -> Any:
                zeros = tf.zeros(shape, dtype)
                tape.watch(zeros)
                probes.append(zeros)
                return zeros

            tape.watch(values)
            with keras.StatelessScope():
                loss, outputs = function(probe, given)
        found = tape.gradient(loss, [*probes, *values], unconnected_gradients=tf.UnconnectedGradients.ZERO)
        found = [tf.convert_to_tensor(g) for g in found]
        return finish(outputs, found[: len(probes)], found[len(probes) :])

    return program


def compiled(function: Callable[[Any], Any], variables: list[Any]) -> Callable[[Any], Any]:
    """Returns the function as a program that reads the variables."""
    del variables

    @tf.function(autograph=False)
    def program(given: Tree) -> Any:
        with keras.StatelessScope():
            return function(given)

    return program


map_slices = keras.ops.vectorized_map


def name_optimizers() -> None:
    """Does nothing: here Keras saves optimizers by their public names anyway."""


outside_of_programs = tf.init_scope
keeping_random_state = nullcontext  # TensorFlow draws from Keras's own generators


def random_state() -> list[Any]:
    """Returns nothing: there are no generators besides Keras's own."""
    return []


def set_random_state(states: Sequence[Any]) -> None:
    """Does nothing, as there are none."""
    del states


def scan(body: Body, carry: Tree, xs: Tree, *, reverse: bool = False) -> tuple[Any, Any]:
    """Runs `body` over the leading axis of `xs`, traced once; run eagerly, it is a loop in Python."""
    if tf.executing_eagerly():
        carry, ys = unroll(lambda carry, x, _: body(carry, x, None), carry, slices(xs), reverse=reverse)
        return carry, stacked(ys)
    flat_xs = [tf.convert_to_tensor(x) for x in keras.tree.flatten(xs)]
    flat_carry = [tf.convert_to_tensor(c) for c in keras.tree.flatten(carry)]
    length = int(flat_xs[0].shape[0] or 0)

    def flat_body(flat_carry: Any, parts: list[Any]) -> tuple[list[Any], Any]:
        next_carry, ys = body(
            keras.tree.pack_sequence_as(carry, list(flat_carry)), keras.tree.pack_sequence_as(xs, parts), None
        )
        return keras.tree.flatten(next_carry), ys

    # What a block gives off is known once it has been traced; nothing uses this trace, so the graph drops it.
    _, pattern = flat_body(flat_carry, [x[0] for x in flat_xs])
    patterns = keras.tree.flatten(pattern)
    # Arrays rather than slices: the gradient of a slice is as large as the whole, at each of the blocks.
    arrays = [tf.TensorArray(x.dtype, length, element_shape=x.shape[1:]).unstack(x) for x in flat_xs]
    given_off = [tf.TensorArray(y.dtype, length, element_shape=y.shape) for y in patterns]

    def step(count: Any, flat_carry: Any, given_off: Any) -> tuple[Any, Any, Any]:
        index = length - 1 - count if reverse else count
        next_carry, ys = flat_body(flat_carry, [array.read(index) for array in arrays])
        for before, after in zip(flat_carry, next_carry, strict=True):
            after.set_shape(before.shape)
        flat_ys = keras.tree.flatten(ys)
        return count + 1, next_carry, [array.write(index, y) for array, y in zip(given_off, flat_ys, strict=True)]

    _, flat_carry, given_off = tf.while_loop(
        lambda count, *_: count < length,
        step,
        (tf.constant(0), flat_carry, given_off),
        maximum_iterations=length,  # without it XLA cannot make the gradient
    )
    ys = keras.tree.pack_sequence_as(pattern, [array.stack() for array in given_off])
    return keras.tree.pack_sequence_as(carry, list(flat_carry)), ys


def recompute(function: Callable[..., Any], *, in_loop: bool, held: Sequence[Any]) -> Callable[..., Any]:
    """Returns the function, keeping only its arguments for the gradient."""
    del in_loop

    def apply(*arguments: Any) -> Any:
        structure: Any = None

        # The tensors that the function holds are given to it too, though it uses its own, so that they get a gradient.
        @tf.custom_gradient
        def run(*given: Tree) -> Any:
            nonlocal structure
            flat = given[: len(given) - len(held)]
            outputs = function(*keras.tree.pack_sequence_as(arguments, list(flat)))
            structure = keras.tree.map_structure(lambda tensor: None, outputs)

            def gradient(*upstream: Tensor, variables: Any = None) -> Any:
                variables = list(variables or ())
                # Waits for the gradient to arrive, and hides that the work is the same as before.
                with tf.control_dependencies([u for u in upstream if u is not None]):
                    again = [tf.identity(tensor) for tensor in flat]
                inputs = [*again, *held]
                watched = [tensor for tensor in inputs if tensor.dtype.is_floating]
                with tf.GradientTape() as tape:
                    tape.watch(watched)
                    outputs = keras.tree.flatten(function(*keras.tree.pack_sequence_as(arguments, again)))
                pairs = [
                    (o, u) for o, u in zip(outputs, upstream, strict=True) if o.dtype.is_floating and u is not None
                ]
                ends, cotangents = zip(*pairs, strict=True)
                each = iter(_gradients(tape, list(ends), watched + variables, cotangents))
                gradients = [next(each) if tensor.dtype.is_floating else None for tensor in inputs]
                return (gradients, list(each)) if variables else gradients

            return keras.tree.flatten(outputs), gradient

        flat = run(*[tf.convert_to_tensor(x) for x in keras.tree.flatten(arguments)], *held)
        return keras.tree.pack_sequence_as(structure, list(flat))

    return apply


def recompute_cheap(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function: here, what is kept cannot be chosen."""
    return function


def pullback(program: ReversiblePass, given: Tree, others: Tree, state: Tree, flat: Any, bars: Any) -> Any:
    """Returns the cotangents of what a reversible stack was given, from its last state; they have a gradient again.

    For that every block's activations are kept: what undoes a block starts from tensors that no tape leads to.

    Args:
        program: The stack.
        given: Structure of what it was given.
        others: What it was given without a gradient.
        state: Its last state.
        flat: What it was given, flattened.
        bars: Cotangents of rows and losses.
    """
    count = len(flat)

    @tf.custom_gradient
    def undone(*tensors: Any) -> Any:
        rows_bar, losses_bar = keras.tree.pack_sequence_as(bars, list(tensors[count:]))
        _, weights = keras.tree.pack_sequence_as(given, list(tensors[:count]))
        found = program.run_backward(state, rows_bar, weights, others, losses_bar)

        def gradient(*upstream: Tensor) -> Any:
            own = [tf.identity(tensor) for tensor in tensors]  # one tensor may be given twice
            flat, cotangents = own[:count], own[count:]
            with tf.GradientTape() as outer:
                outer.watch(own)
                with tf.GradientTape() as inner:
                    inner.watch(flat)
                    rows, weights = keras.tree.pack_sequence_as(given, flat)
                    last, losses, _ = program.run(rows, weights, others)
                    ends = keras.tree.flatten((program.leave(last), losses))
                kept = _gradients(inner, ends, flat, cotangents)
            return _gradients(outer, kept, own, upstream)

        return keras.tree.flatten(found), gradient

    return undone(*flat, *keras.tree.flatten(bars))


def _gradients(tape: Any, ends: Any, sources: Any, cotangents: Tree) -> list[Any]:
    """Returns gradients as tensors, zeros for what is not connected."""
    zero = tf.UnconnectedGradients.ZERO
    found = tape.gradient(ends, list(sources), output_gradients=list(cotangents), unconnected_gradients=zero)
    return [tf.convert_to_tensor(g) for g in found]


def reversible(program: ReversiblePass, rows: Tree, weights: Tree, others: Tree) -> tuple[Any, Any, Any]:
    """Runs a stack without keeping activations."""
    structure: Any = None
    given = (rows, weights)

    @tf.custom_gradient
    def apply(*flat: Any) -> Any:
        nonlocal structure
        rows, weights = keras.tree.pack_sequence_as(given, list(flat))
        state, losses, updates = program.run(rows, weights, others)
        outputs = (program.leave(state), losses, updates)
        structure = keras.tree.map_structure(lambda tensor: None, outputs)

        def gradient(*upstream: Tensor) -> Any:
            rows_bar, losses_bar, _ = keras.tree.pack_sequence_as(structure, list(upstream))
            return pullback(program, given, others, state, flat, (rows_bar, losses_bar))

        return keras.tree.flatten(outputs), gradient

    flat = apply(*[tf.convert_to_tensor(x) for x in keras.tree.flatten(given)])
    return keras.tree.pack_sequence_as(structure, list(flat))


def compilation_cache() -> None:
    """Returns None: no compiled program outlives the process."""
