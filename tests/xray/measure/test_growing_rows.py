"""The gradient behind each block of stacks whose rows grow with depth, against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from contract import to_numpy
from keras_residual import Residual, ResidualStack
from keras_residual.stacks.topologies.base import Link
from keras_residual.xray import xray

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 5)).astype("float32")
Y = RNG.normal(size=(4, 5)).astype("float32")
DEPTH = 3
GROWING = ("dense_former", "mudd", "attention_residuals", "unet", "fractal")


def stack_of(topology: Any, **kwargs: Any) -> ResidualStack:
    block = Residual([layers.Dense(6, activation="tanh"), layers.Dense(5)])
    return ResidualStack(block, DEPTH, topology=topology, name="stack", **kwargs)


def look(stack: ResidualStack) -> Any:
    model = keras.Sequential([keras.Input((5,)), stack])
    return xray(model, X, Y, "mse", training=False)


def outputs_by_hand(stack: ResidualStack, moves: list[np.ndarray]) -> Any:
    """Returns what the stack makes of the batch where `moves` are added to what its blocks write."""
    connections = [cell.connections[0] for cell in stack._blocks.cells]
    x = ops.convert_to_tensor(X)
    rows, weights = [x], np.array([1.0])
    for index, connection in enumerate(connections):
        if type(stack.topology).__name__ == "DenseFormer":
            received = sum(float(w) * row for w, row in zip(weights, rows, strict=True))
            weights = to_numpy(stack._blocks.cells[index].links[0].alphas)
            rows.append(connection(received) + ops.convert_to_tensor(moves[index]))
        else:  # attention residuals as they begin: plain means
            rows.append(
                connection.branch_output(sum(rows) / len(rows), False, None, None) + ops.convert_to_tensor(moves[index])
            )
    if type(stack.topology).__name__ == "DenseFormer":
        return sum(float(w) * row for w, row in zip(weights, rows, strict=True))
    return sum(rows) / len(rows)


@pytest.mark.parametrize("topology", ["dense_former", "attention_residuals"])
def test_the_gradient_behind_each_block_is_that_of_finite_differences(topology: str) -> None:
    stack = stack_of(topology)
    stack(X)
    if topology == "dense_former":
        for cell in stack._blocks.cells:
            cell.links[0].alphas.assign(RNG.normal(size=cell.links[0].alphas.shape))
    report = look(stack)
    nothing = [np.zeros(X.shape, "float32")] * DEPTH
    np.testing.assert_allclose(to_numpy(outputs_by_hand(stack, nothing)), to_numpy(stack(X)), rtol=1e-4, atol=1e-5)
    for index, block in enumerate(report.blocks):
        gradient, step = np.zeros(X.shape), 1e-2
        for place in range(5):
            losses = []
            for sign in (1, -1):
                moves = [move.copy() for move in nothing]
                moves[index][:, place] = sign * step
                outputs = to_numpy(outputs_by_hand(stack, moves)).astype("float64")
                losses.append(((outputs - Y) ** 2).mean(axis=1))
            gradient[:, place] = (losses[0] - losses[1]) / (2 * step * len(X))
        assert block["gradient_norm"] == pytest.approx(np.linalg.norm(gradient, axis=1).sum(), rel=5e-3)


@pytest.mark.parametrize("topology", GROWING)
def test_each_block_has_a_gradient_of_its_own(topology: str) -> None:
    report = look(stack_of(topology))
    found = [block["gradient_norm"] for block in report.blocks]
    assert all(norm > 0 for norm in found)
    assert len(set(found)) > 1  # columns of a fractal that meet in a mean have the same
    assert report.model["gradient_norm_input"] > 0
    assert report.model["gradient_ratio"] > 0


@pytest.mark.parametrize("topology", ["mudd", "fractal"])
def test_in_half_precision(topology: str) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    assert all(block["gradient_norm"] > 0 for block in look(stack_of(topology)).blocks)


def unreached(monkeypatch: pytest.MonkeyPatch) -> ResidualStack:
    """Returns a stack whose connections have a way of their own to write."""

    def connect(self: Any, rows: Any, branch: Callable[[Any], Any], context: Any, training: Any = None) -> Any:
        coefficients = self.coefficients(rows, context)
        added = branch(self.read(rows, coefficients))
        return self.finish((rows[0] + added, *rows[1:]))

    monkeypatch.setattr(Link, "connect", connect)
    return stack_of("dense_former")


@pytest.mark.parametrize("which", ["recomputed", "unreached"])
def test_where_it_cannot_be_had_it_is_none_and_no_fault(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    report = look(stack_of("dense_former", remat="full") if which == "recomputed" else unreached(monkeypatch))
    found = [block["gradient_norm"] for block in report.blocks]
    assert found[:-1] == [None, None]
    assert found[-1] > 0, "that behind the stack"
    assert report.advice == []
    assert "–" in str(report)
