"""Depth weighted averages against the formula, and against the way the authors' code counts."""

from __future__ import annotations

import numpy as np
import pytest

from contract import assert_close
from keras_residual.stacks.topologies.dense_former import DenseFormer
from stacks.topologies.history_driver import (
    Driven,
    X,
    assert_config_comes_back,
    assert_link_config_comes_back,
    assert_no_zero_gradient,
    branches,
    in_numpy,
    plain,
)


def by_hand(driven: Driven, dilation: int, period: int) -> np.ndarray:
    """Returns `Y_d`, where `X_i` is what block `i` makes of `Y_{i-1}` and `Y_i` the average of `X_i, X_{i-k}, …`."""
    functions, per_block = in_numpy(driven.depth * driven.per_block), driven.per_block
    y = X.astype("float64")
    outputs = [y]
    for block in range(1, driven.depth + 1):
        for function in functions[(block - 1) * per_block : block * per_block]:
            y = y + function(y)
        outputs.append(y)
        if block % period == 0:
            alphas = driven.links[block * per_block - 1].get_weights()[0].astype("float64")
            newest_first = list(range(block, -1, -dilation))
            assert len(alphas) == len(newest_first)
            y = sum(a * outputs[j] for a, j in zip(alphas[::-1], newest_first, strict=True))
    return y


@pytest.mark.parametrize(
    ("depth", "per_block", "dilation", "period"),
    [(1, 1, 1, 1), (3, 1, 1, 1), (4, 2, 1, 1), (5, 1, 2, 1), (5, 1, 1, 2), (6, 2, 3, 2), (3, 1, 9, 1)],
)
def test_output_is_that_of_the_formula(depth: int, per_block: int, dilation: int, period: int) -> None:
    driven = Driven(DenseFormer(dilation=dilation, period=period), depth, per_block)
    assert sum(bool(link.weights) for link in driven.links) == depth // period
    assert_close(driven(X, branches(depth * per_block)), plain(X, depth * per_block))  # plain at first
    driven.randomize()
    assert_close(driven(X, branches(depth * per_block)), by_hand(driven, dilation, period))


def test_number_of_weights_is_the_papers() -> None:
    """`d (d + 3) / 2` scalars for depth `d`."""
    driven = Driven(DenseFormer(), 7)
    assert sum(weight.shape[0] for weight in driven.weights) == 7 * 10 // 2


def test_one_weight_alone_chooses_that_output() -> None:
    driven = Driven(DenseFormer(), 3)
    driven.links[-1].set_weights([np.array([0.0, 1.0, 0.0, 0.0], "float32")])
    assert_close(driven(X, branches(3)), plain(X, 1))


def test_every_weight_learns() -> None:
    assert_no_zero_gradient(Driven(DenseFormer(dilation=2), 5), 5)


def test_configuration_comes_back() -> None:
    topology = DenseFormer(dilation=2, period=3, dtype="mixed_bfloat16")
    assert_config_comes_back(topology)
    assert (topology.get_config()["dilation"], topology.get_config()["period"]) == (2, 3)
    assert_link_config_comes_back(Driven(topology, 3).links[2])


@pytest.mark.any_backend
@pytest.mark.parametrize("argument", ["dilation", "period"])
def test_steps_are_positive_whole_numbers(argument: str) -> None:
    with pytest.raises(ValueError, match=f"`{argument}` must be a whole number of at least 1, but received 0"):
        DenseFormer(**{argument: 0})
    with pytest.raises(TypeError, match=f"`{argument}` must be a whole number"):
        DenseFormer(**{argument: 1.5})
