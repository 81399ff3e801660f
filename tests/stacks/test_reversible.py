"""Reversible stacks: the papers' formulas, the gradient of a stack that keeps everything, and next to no memory."""

from __future__ import annotations

import re
from contextlib import nullcontext
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from backend_helpers import forward_derivative, gradients, gradients_of_penalty, weighted_sum
from contract import assert_close, to_numpy
from keras_residual import Residual, ResidualStack, observe
from keras_residual.stacks.topologies import Momentum, Reversible

X = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")


def block(width: int = 6, hidden: int = 8) -> Residual:
    branch = [
        layers.Dense(hidden, activation="tanh", name="in"),
        layers.BatchNormalization(name="norm"),
        layers.Dropout(0.2, name="dropout"),
        layers.Dense(width, name="out"),
    ]
    return Residual(branch, name="residual")


def made(
    topology: Any, depth: int = 6, execution: str = "scan", width: int = 6, hidden: int = 8, **kwargs: Any
) -> ResidualStack:
    keras.utils.set_random_seed(1)
    stack = ResidualStack(block(width, hidden), depth, topology=topology, execution=execution, **kwargs)
    stack.build((None, 6))
    return stack


def branches(stack: ResidualStack) -> list[Any]:
    cells = stack.with_execution("unrolled")._blocks.cells
    return [cell.connections[0].branch_output for cell in cells]


@pytest.mark.parametrize("precision", ["double", "single"])
def test_revnet_adds_to_its_streams_in_turn(precision: str) -> None:
    stack = made(Reversible(precision=precision))
    a = b = ops.convert_to_tensor(X)
    for branch in branches(stack):
        a, b = b, a + branch(b)
    assert_close(stack(X), (a + b) / 2, 1e-5)


def test_revnet_of_two_halves() -> None:
    stack = made(Reversible(split="channels"), width=3)
    x1, x2 = (ops.convert_to_tensor(half) for half in (X[:, :3], X[:, 3:]))
    each = branches(stack)
    for f, g in zip(each[::2], each[1::2], strict=True):
        x1 = x1 + f(x2)
        x2 = x2 + g(x1)
    assert_close(stack(X), ops.concatenate([x1, x2], axis=-1), 1e-5)


def test_momentum_keeps_a_velocity() -> None:
    stack = made(Momentum(0.7))
    x = ops.convert_to_tensor(X)
    v = ops.zeros_like(x)
    for branch in branches(stack):
        v = 0.7 * v + 0.3 * branch(x)
        x = x + v
    assert_close(stack(X), x, 1e-5)


@pytest.mark.parametrize("execution", ["scan", "unrolled"])
@pytest.mark.parametrize("topology", [Reversible(), Reversible(precision="single"), Momentum(0.9)], ids=str)
def test_the_gradient_is_that_of_a_stack_that_keeps_everything(topology: Any, execution: str) -> None:
    stack = made(type(topology).from_config(topology.get_config()), execution=execution)

    def kept(x: Any) -> Any:
        with observe(stack, lambda received, added: {}):
            return stack(x, training=True)

    seeds = stack._blocks.non_float_values()
    expected_x, expected = gradients(kept, [X], stack.trainable_variables)
    stack._blocks.set_non_float_values(seeds)  # the same dropout
    found_x, found = gradients(lambda x: stack(x, training=True), [X], stack.trainable_variables)
    assert_close(found_x[0], expected_x[0], 1e-5)
    for variable, one, other in zip(stack.trainable_variables, found, expected, strict=True):
        if "in/bias" not in variable.path:
            assert_close(one, other, 1e-5)
        assert np.abs(one).max() > 0


@pytest.mark.parametrize("execution", ["scan", "unrolled"])
@pytest.mark.parametrize("topology", ["reversible", "momentum"])
@pytest.mark.parametrize("remat", ["full", "sqrt"])
def test_blocks_that_are_computed_again_rather_than_undone(topology: str, remat: str, execution: str) -> None:
    stack = made(topology, execution=execution)
    other = stack.with_execution(execution, remat=remat)
    expected_x, expected = gradients(lambda x: stack(x, training=True), [X], stack.trainable_variables)
    found_x, found = gradients(lambda x: other(x, training=True), [X], other.trainable_variables)
    for one, two in zip([*found_x, *found], [*expected_x, *expected], strict=True):
        assert_close(one, two, 1e-5)


def penalised(topology: str, execution: str, remat: Any, *, kept: bool = False) -> dict[str, np.ndarray]:
    """Returns the gradients of a penalty on the gradient, those of all blocks stacked."""
    stack = made(topology, 4, execution=execution, remat=remat)

    def apply(x: Any) -> Any:
        # The same tensor goes another way as well, which must not be counted twice.
        with observe(stack, lambda received, added: {}) if kept else nullcontext():
            return stack(ops.tanh(x), training=True) + x

    by_x, *by_variable = gradients_of_penalty(apply, X, stack.trainable_variables)
    named: dict[str, list[np.ndarray]] = {}
    for variable, gradient in zip(stack.trainable_variables, by_variable, strict=True):
        named.setdefault(variable.path.split("/", 2)[2], []).append(gradient)
    scanned = execution == "scan"
    return {"x": by_x} | {name: each[0] if scanned else np.stack(each) for name, each in named.items()}


def assert_penalty(topology: str, execution: str, remat: Any) -> None:
    expected = penalised(topology, "unrolled", False, kept=topology != "single")
    found = penalised(topology, execution, remat)
    for name, value in expected.items():
        assert np.abs(value).max() > 0
        if name != "residual/in/bias":  # before a batch norm
            assert_close(found[name], value, 1e-5)


@pytest.mark.parametrize("topology", ["reversible", "momentum"])
def test_the_gradient_of_a_gradient(topology: str) -> None:
    assert_penalty(topology, "scan", False)


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["scan", "unrolled"])
@pytest.mark.parametrize("remat", [False, "full", "sqrt"])
@pytest.mark.parametrize("topology", ["single", "reversible", "momentum"])
def test_the_gradient_of_a_gradient_in_every_execution(topology: str, remat: Any, execution: str) -> None:
    assert_penalty(topology, execution, remat)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("topology", ["single", "reversible"])
@pytest.mark.parametrize("remat", [False, "full"])
def test_forward_mode_is_right_or_refused(topology: str, remat: Any) -> None:
    stack = made(topology, 4, execution="scan", remat=remat)
    direction = np.random.default_rng(5).normal(size=X.shape).astype("float32")
    (backward,), _ = gradients(lambda x: stack(x), [X])

    def derivative() -> np.ndarray:
        return forward_derivative(lambda x: weighted_sum(stack(x)), X, direction)

    if topology == "reversible" and not remat and keras.backend.backend() != "tensorflow":
        with pytest.raises((TypeError, RuntimeError), match=r"(?i)forward"):
            derivative()
        return
    assert_close(derivative(), np.sum(backward * direction), 1e-4)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="a graph is kept for a second pass on PyTorch alone")
@pytest.mark.parametrize(("topology", "remat"), [("reversible", False), ("single", "full"), ("single", "sqrt")])
def test_a_graph_that_is_kept_serves_two_backward_passes(topology: str, remat: Any) -> None:
    import torch

    stack = made(topology, 4, execution="unrolled", remat=remat)
    x = torch.tensor(X, requires_grad=True)
    loss = weighted_sum(stack(x, training=True))
    first, second = (torch.autograd.grad(loss, x, retain_graph=True)[0] for _ in range(2))
    assert_close(second, first, 1e-6)


@pytest.mark.parametrize("execution", ["scan", "unrolled"])
def test_statistics_and_seeds_move_once_a_call(execution: str) -> None:
    stack = made("reversible", execution=execution)
    other = made("reversible", execution="unrolled")
    seeds = stack._blocks.non_float_values()[0]
    if keras.backend.backend() == "jax":
        stack(X, training=True)  # there a gradient is taken of a function, which changes nothing
    else:
        gradients(lambda x: stack(x, training=True), [X], stack.trainable_variables)
    with observe(other, lambda received, added: {}):
        other(X, training=True)
    for name, value in other.get_stacked_weights().items():
        np.testing.assert_allclose(stack.get_stacked_weights()[name], value, 1e-5, 1e-6, err_msg=name)
    np.testing.assert_array_equal(stack._blocks.non_float_values()[0][:, 1], seeds[:, 1] + 1)


def deep(precision: str, depth: int) -> float:
    """Returns the error of the weights' gradient at a depth, relative to its maximum."""
    keras.utils.set_random_seed(0)
    branch = [
        layers.Dense(16, activation="relu", name="in"),
        layers.BatchNormalization(gamma_initializer=keras.initializers.Constant(0.3), name="norm"),
    ]
    stack = ResidualStack(
        Residual(branch), depth, topology=Reversible(precision=precision), execution="scan", name="stack"
    )
    x = np.random.default_rng(0).normal(size=(16, 16)).astype("float32")
    stack.build((None, 16))

    def kept(x: Any) -> Any:
        with observe(stack, lambda received, added: {}):
            return stack(x, training=True)

    kernels = [v for v in stack.trainable_variables if "kernel" in v.path]
    _, expected = gradients(kept, [x], kernels)
    _, found = gradients(lambda x: stack(x, training=True), [x], kernels)
    return float(np.abs(found[0] - expected[0]).max() / np.abs(expected[0]).max())


def test_the_drift_of_a_hundred_blocks() -> None:
    assert deep("double", 100) < 2e-5


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="a thousand blocks in a scan; the others loop in Python")
def test_the_drift_of_a_thousand_blocks_is_gone() -> None:
    assert deep("single", 1000) > 1e-3, "one part of float32 drifts no more: the second has nothing to show"
    assert deep("double", 1000) < 1e-4


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="XLA says how much memory a program needs")
def test_memory_does_not_grow_with_depth() -> None:
    import jax

    def temporary(depth: int, topology: str, remat: Any, hidden: int = 8) -> float:
        stack = made(topology, depth, remat=remat, hidden=hidden)
        trained = [v.value for v in stack.trainable_variables]
        state = [v.value for v in stack.non_trainable_variables]

        def loss(trained: Any, state: Any, x: Any) -> Any:
            y, state = stack.stateless_call(trained, state, x, training=True)
            return ops.sum(ops.square(y)), state

        x = np.zeros((256, 6), "float32")
        compiled = jax.jit(jax.grad(loss, has_aux=True)).lower(trained, state, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    few, many = (temporary(depth, "reversible", False) for depth in (10, 1000))
    assert many <= 1.05 * few
    assert many <= temporary(1000, "reversible", "full") / 40
    # Some sixty of the rows between blocks are kept instead of what each of a thousand blocks needs.
    everything, groups = (temporary(1000, "single", remat, hidden=24) for remat in (False, "sqrt"))
    assert temporary(1000, "reversible", False, hidden=24) <= everything / 100
    assert groups <= everything / 50


@pytest.mark.parametrize("policy", ["mixed_float16", "float16"])
def test_half_precision_drifts_no_more_than_float32(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    stack = made("reversible", depth=20)
    x = X.astype("float16")

    def kept(x: Any) -> Any:
        with observe(stack, lambda received, added: {}):
            return stack(x)

    (expected,), _ = gradients(kept, [x])
    (found,), _ = gradients(lambda x: stack(x), [x])
    assert_close(found.astype("float32"), expected.astype("float32"), 2e-3)


def test_a_block_of_two_connections() -> None:
    keras.utils.set_random_seed(0)
    pair = [Residual([layers.Dense(6, activation="tanh")], name="f"), Residual([layers.Dense(6)], name="g")]
    stack = ResidualStack(pair, 3, topology="reversible", execution="scan")
    stack.build((None, 6))

    def kept(x: Any) -> Any:
        with observe(stack, lambda received, added: {}):
            return stack(x)

    expected_x, expected = gradients(kept, [X], stack.trainable_variables)
    found_x, found = gradients(lambda x: stack(x), [X], stack.trainable_variables)
    for one, other in zip([*found_x, *found], [*expected_x, *expected], strict=True):
        assert_close(one, other, 1e-5)


@pytest.mark.parametrize(
    ("topology", "depth", "message"),
    [
        (Momentum(0.9), 200, "`momentum` must be a number whose power -200 is no more than 1.7e+05, but received 0.9"),
        (Momentum(0.9, precision="single"), 100, "topology='reversible'"),
        (Reversible(split="channels"), 3, None),
    ],
    ids=str,
)
def test_what_would_drift_is_refused_with_the_figure(topology: Any, depth: int, message: str | None) -> None:
    topology = type(topology).from_config(topology.get_config())
    if message is None:
        with pytest.raises(ValueError, match="an even number of channels"):
            ResidualStack(Residual(layers.Dense(2)), depth, topology=topology).build((None, 5))
        return
    with pytest.raises(ValueError, match=re.escape(message)):
        ResidualStack(block(), depth, topology=topology).build((None, 6))


def test_precision_and_split_are_checked() -> None:
    with pytest.raises(ValueError, match="`precision`"):
        Reversible(precision="half")
    with pytest.raises(ValueError, match="`split`"):
        Reversible(split="rows")
    with pytest.raises(ValueError, match="`momentum` must be a number in"):
        Momentum(1.0)


def test_a_reversible_stack_of_the_digits_width_trains() -> None:
    stack = made("reversible", depth=10)
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(1)(stack(inputs)))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    history = model.fit(X, X[:, :1] ** 2, epochs=40, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]
    assert np.isfinite(to_numpy(model(X))).all()
