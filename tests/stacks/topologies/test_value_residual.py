"""Value residuals against attention written in NumPy."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from contract import assert_close, to_numpy
from keras_residual import Residual
from keras_residual.layers.value_attention import ValueResidualAttention
from keras_residual.residual.context import DepthContext
from keras_residual.stacks.topologies.value_residual import ValueResidual
from stacks.topologies.history_driver import (
    SHAPE,
    Driven,
    X,
    assert_config_comes_back,
    assert_link_config_comes_back,
    softmax,
)

HEADS, KEY, VALUE = 2, 3, 5
CHANNELS = SHAPE[-1]


def attention(**kwargs: Any) -> ValueResidualAttention:
    return ValueResidualAttention(HEADS, KEY, value_dim=VALUE, **kwargs)


def nested(position: int) -> keras.Layer:
    """Returns a connection whose attention is two layers deep, or one without attention."""
    if position == 1:
        return Residual(keras.layers.Dense(CHANNELS, activation="tanh"))
    return Residual([keras.layers.LayerNormalization(), keras.Sequential([attention()])])


def built(
    topology: ValueResidual, depth: int, per_block: int = 1, connection: Any = nested
) -> tuple[Driven, list[Any]]:
    """Returns the driven topology with random weights, and the branches of its connections."""
    driven = Driven(topology, depth, per_block, connection)
    rng = np.random.default_rng(8)
    for layer in driven.connections:
        layer.build((None, *SHAPE[1:]))
        layer.set_weights([w + 0.7 * rng.normal(size=w.shape).astype("float32") for w in layer.get_weights()])
    return driven, [layer.branch_output for layer in driven.connections]


def attend(layer: ValueResidualAttention, x: np.ndarray, first: Any, lam: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the attention's output with values `(1 - lam) V + lam V_1`, and its own values."""

    def project(dense: keras.layers.Dense, size: int) -> np.ndarray:
        kernel, bias = (w.astype("float64") for w in dense.get_weights())
        return (x @ kernel + bias).reshape(*x.shape[:2], HEADS, size)

    q, k, v = project(layer.query, KEY), project(layer.key, KEY), project(layer.value, VALUE)
    mixed = v if first is None else (1 - lam) * v + lam * first
    weights = softmax(np.einsum("bthk,bshk->bhts", q, k) / np.sqrt(KEY))
    y = np.einsum("bhts,bshv->bthv", weights, mixed).reshape(*x.shape[:2], HEADS * VALUE)
    kernel, bias = (w.astype("float64") for w in layer.output_projection.get_weights())
    return y @ kernel + bias, v


def by_hand(driven: Driven, lams: list[float]) -> np.ndarray:
    x, first, left = X.astype("float64"), None, list(lams)
    for layer in driven.connections:
        if len(layer.branch) == 1:
            kernel, bias = layer.branch[0].get_weights()
            x = x + np.tanh(x @ kernel + bias)
            continue
        norm, holder = layer.branch
        gamma, beta = norm.get_weights()
        centred = x - x.mean(axis=-1, keepdims=True)
        normed = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + norm.epsilon) * gamma + beta
        added, values = attend(holder.layers[-1], normed, first, left.pop(0))
        first = values if first is None else first
        x = x + added
    return x


@pytest.mark.parametrize(("depth", "per_block"), [(1, 1), (4, 1), (3, 2)])
@pytest.mark.parametrize("learnable", [True, False])
def test_output_is_that_of_the_formula(depth: int, per_block: int, learnable: bool) -> None:
    driven, branches = built(ValueResidual(init=0.3, learnable=learnable), depth, per_block)
    lams = [0.3] * depth
    assert_close(driven(X, branches), by_hand(driven, lams), 2e-5)
    if learnable:
        driven.randomize()
        lams = [float(w) for link in driven.links for w in link.get_weights()]
        assert len(lams) == depth
        assert_close(driven(X, branches), by_hand(driven, lams), 2e-5)
    else:
        assert driven.weights == []


def test_without_lam_the_stack_is_plain() -> None:
    driven, branches = built(ValueResidual(init=0.0), 3)
    assert_close(driven(X, branches), by_hand(driven, [0.0] * 3), 2e-5)
    x = X
    for branch in branches:
        x = x + to_numpy(branch(x))
    assert_close(driven(X, branches), x)


def test_two_attentions_in_a_block_have_one_first() -> None:
    """The second connection of block 0 already mixes."""
    driven, branches = built(ValueResidual(init=0.4), 2, 2, lambda position: nested(0))
    assert [link.publishes for link in driven.links] == [True, False, True, False]
    assert_close(driven(X, branches), by_hand(driven, [0.4] * 4), 2e-5)


def test_index_may_be_a_tensor() -> None:
    """As in a scan: the same link, told at which block it is."""
    driven, (first, second) = built(ValueResidual(init=0.3), 2)
    rows = driven.topology.begin(ops.convert_to_tensor(X))
    for link, branch, index in zip(driven.links, (first, second), (0, 1), strict=True):
        rows = link.connect(rows, branch, DepthContext(index=ops.convert_to_tensor(index, "int32")))
    assert_close(driven.topology.end(rows), to_numpy(driven(X, [first, second])))


def test_first_values_are_a_row() -> None:
    driven, (branch,) = built(ValueResidual(), 1)
    begun = driven.topology.begin(ops.convert_to_tensor(X))
    assert to_numpy(begun[1]).shape == (*SHAPE[:2], HEADS, VALUE)
    assert not to_numpy(begun[1]).any()
    _, values = driven.links[0].connect(begun, branch, DepthContext(index=0))
    assert to_numpy(values).any()
    _, kept = driven.links[0].connect((begun[0], values), branch, DepthContext(index=1))
    assert_close(kept, to_numpy(values), 0.0)


def test_outside_the_call_attention_is_plain_even_after_an_error() -> None:
    driven, (branch,) = built(ValueResidual(), 1)
    layer = driven.connections[0].branch[1].layers[-1]
    plain = to_numpy(layer(X))
    rows = driven.topology.begin(ops.convert_to_tensor(X))
    driven.links[0].connect(rows, branch, DepthContext(index=1))
    assert_close(layer(X), plain, 0.0)

    def failing(x: Any) -> Any:
        branch(x)
        raise RuntimeError("in the branch")

    with pytest.raises(RuntimeError, match="in the branch"):
        driven.links[0].connect(rows, failing, DepthContext(index=1))
    assert_close(layer(X), plain, 0.0)


def test_weights_of_the_attention_are_the_connections_alone() -> None:
    driven, _ = built(ValueResidual(learnable=True), 2)
    assert [len(link.weights) for link in driven.links] == [1, 1]


@pytest.mark.any_backend
def test_a_block_without_attention_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`block` must be a block that has a ValueResidualAttention.*Make the branch"):
        Driven(ValueResidual(), 2, 2, lambda position: Residual(keras.layers.Dense(CHANNELS)))


@pytest.mark.any_backend
def test_two_attentions_in_a_branch_are_refused() -> None:
    with pytest.raises(ValueError, match="`branch` must be a branch with one ValueResidualAttention"):
        Driven(ValueResidual(), 2, 1, lambda position: Residual([attention(), attention()]))


@pytest.mark.any_backend
def test_values_of_two_sizes_are_refused() -> None:
    sizes = iter([3, 4])
    with pytest.raises(ValueError, match="2 with values of 3 channels, as in the first attention layer"):
        Driven(ValueResidual(), 2, 1, lambda position: Residual(ValueResidualAttention(2, next(sizes))))


def test_configuration_comes_back() -> None:
    topology = ValueResidual(init=0.25, learnable=True, dtype="mixed_bfloat16")
    assert_config_comes_back(topology)
    assert (topology.get_config()["init"], topology.get_config()["learnable"]) == (0.25, True)
    assert_link_config_comes_back(Driven(topology, 1, 1, nested).links[0])
