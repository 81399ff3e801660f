"""Attention residuals against the formula."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from contract import assert_close, to_numpy
from keras_residual.residual.context import DepthContext
from keras_residual.stacks.topologies.attention_residuals import EPSILON, AttentionResiduals, DepthAttention
from stacks.topologies.history_driver import (
    Driven,
    X,
    assert_config_comes_back,
    assert_link_config_comes_back,
    assert_no_zero_gradient,
    branches,
    in_numpy,
    rms_norm,
    softmax,
)


def mixed(rows: list[np.ndarray], attention: DepthAttention) -> np.ndarray:
    """Returns `sum_i softmax_i(w . rms_norm(v_i)) v_i`."""
    weights = {w.name: to_numpy(w.value).astype("float64") for w in attention.weights}
    assert set(weights) == {"gain", "query"}
    logits = np.stack([(rms_norm(v, EPSILON) * weights["gain"]) @ weights["query"] for v in rows], axis=-1)
    a = softmax(logits)
    return sum(a[..., i, None] * v for i, v in enumerate(rows))


def by_hand(driven: Driven) -> np.ndarray:
    """Returns the mix of all `v` at the end."""
    rows = [X.astype("float64")]
    for link, function in zip(driven.links, in_numpy(len(driven.links)), strict=True):
        h = rows[0] if len(rows) == 1 else mixed(rows, link.attention)
        rows.append(function(h))
    return mixed(rows, driven.topology.attention)


@pytest.mark.parametrize(("depth", "per_block"), [(1, 1), (4, 1), (2, 2)])
def test_output_is_that_of_the_formula(depth: int, per_block: int) -> None:
    driven = Driven(AttentionResiduals(), depth, per_block)
    driven.randomize(scale=2.0)
    assert_close(driven(X, branches(depth * per_block)), by_hand(driven))


def test_at_first_every_mix_is_the_plain_mean() -> None:
    driven, rows = Driven(AttentionResiduals(), 3), [X.astype("float64")]
    for function in in_numpy(3):
        rows.append(function(np.mean(rows, axis=0)))
    assert_close(driven(X, branches(3)), np.mean(rows, axis=0))


def test_weights_are_positive_and_sum_to_one() -> None:
    driven = Driven(AttentionResiduals(), 3)
    driven.randomize(scale=2.0)
    rows = tuple(ops.convert_to_tensor(X * scale) for scale in (1.0, -2.0, 100.0))
    weights = to_numpy(driven.links[2].coefficients(rows, DepthContext()).read)
    assert weights.shape == (*X.shape[:-1], 3)
    assert (weights > 0).all()
    assert_close(weights.sum(axis=-1), np.ones(X.shape[:-1], "float32"))
    assert np.std(weights[..., 0]) > 1e-3  # they depend on the token


def test_size_of_a_row_does_not_matter_to_its_weight() -> None:
    driven = Driven(AttentionResiduals(), 2)
    driven.randomize()
    v = X + 1.0
    some, others = ((ops.convert_to_tensor(v), ops.convert_to_tensor(factor * X)) for factor in (1.0, 50.0))
    first, second = (driven.links[1].coefficients(rows, DepthContext()).read for rows in (some, others))
    assert_close(first, to_numpy(second), 1e-4)


def test_transport_keeps_all_rows_and_the_branch_makes_a_new_one() -> None:
    driven = Driven(AttentionResiduals(), 2)
    found = driven.links[1].coefficients((ops.convert_to_tensor(X),) * 2, DepthContext())
    assert found.transport == [[1, 0], [0, 1], [0, 0]]
    assert found.write == [0, 0, 1]


def test_every_weight_learns() -> None:
    driven = Driven(AttentionResiduals(), 3)
    driven.randomize()
    assert len(driven.weights) == 2 * 3  # two links with something to choose from, and the end
    assert_no_zero_gradient(driven, 3)


def test_configuration_comes_back() -> None:
    topology = AttentionResiduals(dtype="mixed_bfloat16")
    assert_config_comes_back(topology)
    assert_link_config_comes_back(Driven(topology, 2).links[1])
