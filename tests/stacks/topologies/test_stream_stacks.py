"""Topologies of several streams in a stack: scanned and unrolled, saved and loaded, named and trained."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from backend_helpers import gradients
from contract import assert_close, to_numpy
from keras_residual import Residual, ResidualStack
from keras_residual.residual.context import DepthContext
from keras_residual.stacks.topologies import TOPOLOGIES, make_topology
from topology_formulas import (
    DEPTH,
    FORMULAS,
    HYPER,
    MADE,
    PER_BLOCK,
    SHAPE,
    X,
)
from topology_helpers import links_of

# The defaults compile long, and of each there is a smaller one.
STACKED = [name for name in MADE if name not in ("hyper_connections", "mhc")]


def block() -> list[keras.layers.Layer]:
    return [
        Residual(keras.layers.Dense(8, activation="tanh", name="dense"), norm="layer_norm", name="first"),
        Residual(keras.layers.Dense(8, activation="tanh", name="dense"), norm="rms_norm", name="second"),
    ]


def stack_of(name: str, execution: str) -> ResidualStack:
    keras.utils.set_random_seed(4)
    return ResidualStack(block(), DEPTH, topology=MADE[name](), execution=execution, name="stack")


@pytest.mark.parametrize("name", STACKED)
def test_a_scanned_stack_is_the_unrolled_one(name: str) -> None:
    stacks = [stack_of(name, execution) for execution in ("unrolled", "scan")]
    for stack in stacks:
        stack(X)
    at_first = [stack.get_stacked_weights() for stack in stacks]
    for key, value in at_first[0].items():
        np.testing.assert_array_equal(at_first[1][key], value, err_msg=key)

    rng = np.random.default_rng(8)
    moved = {key: value + 0.2 * rng.normal(size=value.shape) for key, value in at_first[0].items()}
    ends = [w + 0.2 * rng.normal(size=w.shape) for w in stacks[0].topology.get_weights()]
    found = []
    for stack in stacks:
        stack.set_stacked_weights(moved)
        stack.topology.set_weights(ends)
        by_x, by_variable = gradients(stack, [X], stack.trainable_variables)
        named: dict[str, list[np.ndarray]] = {}
        for variable, gradient in zip(stack.trainable_variables, by_variable, strict=True):
            key = "/".join(p for p in variable.path.split("/") if not p.startswith(("block", "residual_dual")))
            named.setdefault(key, []).append(gradient)
        joined = {key: np.stack(g) if len(g) > 1 else g[0] for key, g in named.items()}
        found.append({"output": to_numpy(stack(X)), "x": by_x[0], **joined})
    assert set(found[0]) == set(found[1])
    for key, value in found[0].items():
        assert_close(found[1][key].reshape(value.shape), value, 1e-5)


@pytest.mark.parametrize("execution", ["unrolled", "scan"])
@pytest.mark.parametrize("name", STACKED)
def test_a_model_is_saved_and_loaded(name: str, execution: str, tmp_path: Path) -> None:
    stack = stack_of(name, execution)
    inputs = keras.Input(SHAPE[1:])
    model = keras.Model(inputs, stack(inputs))
    stack.set_stacked_weights({key: value + 0.1 for key, value in stack.get_stacked_weights().items()})
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(loaded(X), model(X), 1e-6)


@pytest.mark.parametrize("name", [name for name in HYPER if name in STACKED])
def test_a_stack_draws_the_first_weights_of_each_connection(name: str) -> None:
    stack = stack_of(name, "scan")
    stack(X)
    weights = stack.get_stacked_weights()
    links = links_of(MADE[name](), SHAPE, DEPTH, PER_BLOCK)
    for order, link in enumerate(links):
        index, position = divmod(order, PER_BLOCK)
        for variable, value in zip(link.weights, link.get_weights(), strict=True):
            stacked = weights[f"link_{position}/{variable.name}"]
            np.testing.assert_array_equal(stacked[index], value, err_msg=variable.path)


@pytest.mark.parametrize("name", [n for n in TOPOLOGIES if type(make_topology(n)) in FORMULAS])
def test_a_stack_takes_the_name_and_trains(name: str) -> None:
    stack = ResidualStack(block(), 2, topology=name)
    model = keras.Sequential([keras.Input(SHAPE[1:]), stack])
    model.compile("sgd", "mse")
    before = to_numpy(model(X))
    losses = [model.train_on_batch(X, np.zeros_like(X)) for _ in range(3)]
    assert np.isfinite(losses).all()
    assert not np.allclose(before, to_numpy(model(X)))


def test_streams_that_start_as_copies_do_not_stay_so() -> None:
    """With the same weights for all streams they would: then training several were training one."""
    for name in ("hyper_connections_of_3", "mhc_of_3", "mhc_lite", "identity_hyper_connections"):
        stack = ResidualStack(block(), DEPTH, topology=MADE[name](), execution="unrolled", name="stack")
        model = keras.Sequential([keras.Input(SHAPE[1:]), stack])
        model.compile(keras.optimizers.SGD(0.01), "mse")
        for _ in range(30):
            model.train_on_batch(X, np.zeros_like(X))
        rows = stack.topology.begin(ops.convert_to_tensor(X))
        contexts = [DepthContext(index=0)] * PER_BLOCK
        for cell in stack._blocks.cells:
            rows = cell(rows, contexts=contexts)
        first, second = to_numpy(rows[0]), to_numpy(rows[1])
        assert np.abs(first - second).max() > 1e-4 * np.abs(first).max(), name
