"""Seen from outside: what each block receives and adds, the gradient at each boundary, and blocks switched off."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from backend_helpers import gradients, weighted_sum
from contract import assert_close, to_numpy
from keras_residual import Residual, ResidualStack, observe

X = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
DEPTH = 4


def residual() -> Residual:
    return Residual([layers.Dense(8, activation="tanh"), layers.Dense(6)], norm="layer_norm", activation="relu")


def plain() -> layers.Layer:
    return layers.Dense(6, activation="tanh")


KINDS = {"residual": residual, "plain": plain, "pair": lambda: [residual(), residual()]}


def made(execution: str, kind: str = "residual", **kwargs: Any) -> ResidualStack:
    keras.utils.set_random_seed(0)
    stack = ResidualStack(KINDS[kind](), DEPTH, execution=execution, **kwargs)
    stack.build((None, 6))
    return stack


def by_hand(stack: ResidualStack, x: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """Returns what the connections of an unrolled stack receive and add, and what the blocks return."""
    received, added, sent = [], [], []
    for cell in stack.with_execution("unrolled")._blocks.cells:
        for layer in cell.connections:
            received.append(x)
            if isinstance(layer, Residual):
                added.append(layer.branch_output(x))
                x = layer.join(x, added[-1])
            else:
                added.append(layer(x) - x)
                x = layer(x)
        sent.append(x)
    return received, added, sent


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("execution", ["unrolled", "scan"])
def test_what_each_connection_receives_and_adds(execution: str, kind: str) -> None:
    stack = made(execution, kind)
    with observe(stack) as seen:
        y = stack(X)
    received, added, sent = by_hand(stack, ops.convert_to_tensor(X))
    assert_close(seen["received"], ops.stack(received), 1e-5)
    assert_close(seen["added"], ops.stack(added), 1e-5)
    assert_close(y, sent[-1], 1e-5)
    assert_close(y, stack(X), 1e-6)  # being watched changes nothing
    assert len(seen) == 2


@pytest.mark.parametrize("execution", ["unrolled", "scan"])
def test_a_measure_of_ones_own_keeps_numbers_only(execution: str) -> None:
    stack = made(execution)
    with observe(stack, lambda received, added: {"power": ops.mean(ops.square(added))}) as seen:
        stack(X)
    _, added, _ = by_hand(stack, ops.convert_to_tensor(X))
    assert_close(seen["power"], np.array([np.mean(to_numpy(a) ** 2) for a in added]), 1e-5)


@pytest.mark.parametrize("execution", ["unrolled", "scan"])
@pytest.mark.parametrize("remat", [False, "full"])
def test_the_gradient_of_the_probe_is_that_at_each_boundary(execution: str, remat: Any) -> None:
    stack = made(execution, remat=remat)
    zeros = np.zeros((DEPTH, *X.shape), "float32")

    def watched(probe: Any) -> Any:
        with observe(stack, probe=probe):
            return stack(X)

    (found,), _ = gradients(watched, [zeros])
    cells = stack.with_execution("unrolled")._blocks.cells
    _, _, sent = by_hand(stack, ops.convert_to_tensor(X))
    for index in range(DEPTH):

        def rest(x: Any, index: int = index) -> Any:
            for cell in cells[index + 1 :]:
                for layer in cell.connections:
                    x = layer(x)
            return x

        (expected,), _ = gradients(rest, [to_numpy(sent[index])])
        assert_close(found[index], expected, 1e-5)


@pytest.mark.parametrize("kind", ["residual", "plain"])
@pytest.mark.parametrize("execution", ["unrolled", "scan"])
def test_a_block_that_is_switched_off_hands_on_what_it_gets(execution: str, kind: str) -> None:
    stack = made(execution, kind)
    x = ops.convert_to_tensor(np.abs(X))
    mask = np.array([1, 0, 1, 1])
    cells = stack.with_execution("unrolled")._blocks.cells
    expected = x
    for cell, on in zip(cells, mask, strict=True):
        expected = cell.connections[0](expected) if on else expected
    assert_close(stack(x, block_mask=mask), expected, 1e-5)
    with observe(stack, block_mask=mask):
        assert_close(stack(x), expected, 1e-5)
    # One mask a sample: the second half of the batch has all blocks.
    masks = np.stack([mask, mask, np.ones(DEPTH), np.ones(DEPTH)])
    found = to_numpy(stack(x, block_mask=masks))
    assert_close(found[:2], to_numpy(expected)[:2], 1e-5)
    assert_close(found[2:], to_numpy(stack(x))[2:], 1e-5)


@pytest.mark.parametrize("remat", [False, "full"])
def test_the_mask_of_an_observation_leaves_off_what_the_caller_switched_off(remat: Any) -> None:
    stack = made("scan", remat=remat)
    for own in (np.array([1, 0, 1, 1]), np.tile([True, False, True, True], (4, 1))):
        with observe(stack, block_mask=np.array([1.0, 1.0, 1.0, 0.0])):
            found = stack(X, block_mask=own)
        assert_close(found, stack(X, block_mask=np.array([1, 0, 1, 0])), 1e-6)


def test_the_mask_can_be_an_input_of_a_model() -> None:
    stack = made("scan")
    inputs, mask = keras.Input((6,)), keras.Input((DEPTH,))
    model = keras.Model([inputs, mask], stack(inputs, block_mask=mask))
    off = np.ones((4, DEPTH), "float32")
    off[:, 2] = 0
    on_all, without = (model.predict([X, m], verbose=0) for m in (np.ones((4, DEPTH), "float32"), off))
    assert_close(on_all, stack(X), 1e-5)
    assert np.abs(on_all - without).max() > 1e-3


@pytest.mark.parametrize("execution", ["unrolled", "scan"])
def test_a_branch_that_is_switched_off_adds_nothing_to_the_streams(execution: str) -> None:
    keras.utils.set_random_seed(0)
    block = Residual([layers.Dense(8, activation="tanh"), layers.Dense(6)])
    stack = ResidualStack(block, DEPTH, topology="reversible", execution=execution)
    x = ops.convert_to_tensor(X)
    assert_close(stack(x, block_mask=np.zeros(DEPTH)), x, 1e-6)
    assert np.abs(to_numpy(stack(x)) - X).max() > 0.01


def test_a_reversible_stack_is_seen_as_it_is() -> None:
    keras.utils.set_random_seed(0)
    block = Residual([layers.Dense(8, activation="tanh"), layers.Dense(6)])
    stack = ResidualStack(block, DEPTH, topology="reversible", execution="scan")
    with observe(stack) as seen:
        watched = stack(X)
    assert seen["added"].shape == (DEPTH, *X.shape)
    assert_close(stack(X), watched, 1e-6)


def test_nobody_watches_after_the_scope_or_twice() -> None:
    stack = made("scan")
    with pytest.raises(RuntimeError, match="mine"), observe(stack):
        raise RuntimeError("mine")
    with observe(stack), pytest.raises(ValueError, match="a stack that nobody watches"), observe(stack):
        pass
    assert stack.observation is None


def test_the_sum_of_the_loss_reaches_the_first_boundary() -> None:
    """The probe's gradients and the loss come from one backward pass."""
    stack = made("scan")

    def loss(probe: Any) -> Any:
        with observe(stack, probe=probe):
            return weighted_sum(stack(X))

    (found,), _ = gradients(loss, [np.zeros((DEPTH, *X.shape), "float32")])
    assert (np.abs(found).max(axis=(1, 2)) > 0).all()
