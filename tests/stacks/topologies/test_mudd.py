"""MUDD connections against the formula."""

from __future__ import annotations

import math

import numpy as np
import pytest

from contract import assert_close
from keras_residual.stacks.topologies.mudd import EPSILON, Mudd
from stacks.topologies.history_driver import (
    Driven,
    X,
    assert_config_comes_back,
    assert_link_config_comes_back,
    assert_no_zero_gradient,
    branches,
    in_numpy,
    plain,
    rms_norm,
)


def gelu(x: np.ndarray) -> np.ndarray:
    """Returns `x Phi(x)`."""
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def by_hand(driven: Driven) -> np.ndarray:
    """Returns `Y_d` with `Y_i = sum_j A_ij(X_i) X_j`, one set of weights a token."""
    functions, per_block = in_numpy(driven.depth * driven.per_block), driven.per_block
    y = X.astype("float64")
    outputs = [y]
    for block in range(1, driven.depth + 1):
        for function in functions[(block - 1) * per_block : block * per_block]:
            y = y + function(y)
        outputs.append(y)
        w1, w2, b = (w.astype("float64") for w in driven.links[block * per_block - 1].get_weights())
        a = gelu(rms_norm(y, EPSILON) @ w1) @ w2 + b
        assert a.shape == (*X.shape[:-1], block + 1)
        y = sum(a[..., j, None] * outputs[j] for j in range(block + 1))
    return y


@pytest.mark.parametrize(("depth", "per_block"), [(1, 1), (3, 1), (3, 2)])
def test_output_is_that_of_the_formula(depth: int, per_block: int) -> None:
    driven = Driven(Mudd(), depth, per_block)
    assert_close(driven(X, branches(depth * per_block)), plain(X, depth * per_block))  # plain at first
    driven.randomize()
    assert_close(driven(X, branches(depth * per_block)), by_hand(driven))


def test_width_of_the_hidden_layer() -> None:
    shapes = [tuple(w.shape) for w in Driven(Mudd(expansion=3), 2).links[1].weights]
    assert shapes == [(4, 9), (9, 3), (3,)]


def test_first_kernel_starts_at_random_and_the_second_at_zero() -> None:
    first, second, bias = Driven(Mudd(), 2).links[1].get_weights()
    assert np.std(first) > 0.1
    assert not second.any()
    np.testing.assert_array_equal(bias, [0, 0, 1])


def test_every_weight_learns() -> None:
    driven = Driven(Mudd(), 3)
    driven.randomize()
    assert_no_zero_gradient(driven, 3)


def test_configuration_comes_back() -> None:
    topology = Mudd(expansion=2, dtype="mixed_bfloat16")
    assert_config_comes_back(topology)
    assert topology.get_config()["expansion"] == 2
    assert_link_config_comes_back(Driven(topology, 1).links[0])
