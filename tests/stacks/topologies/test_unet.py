"""U-Net skips against the formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from keras import ops

from contract import assert_close, to_numpy
from keras_residual.residual.context import DepthContext
from keras_residual.stacks.topologies.unet import UNet
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


def by_hand(weights: list[float], depth: int, per_block: int) -> np.ndarray:
    """Returns the output, with the weights in the order of the blocks that use them."""
    x, pile, functions, left = X.astype("float64"), [], in_numpy(depth * per_block), list(weights)
    for block in range(depth):
        if block >= depth - depth // 2:
            x = x + left.pop(0) * pile.pop()
        for function in functions[block * per_block : (block + 1) * per_block]:
            x = x + function(x)
        if block < depth // 2:
            pile.append(x)
    assert not pile
    assert not left
    return x


@pytest.mark.parametrize(("depth", "per_block"), [(1, 1), (2, 1), (4, 1), (5, 1), (4, 2), (5, 3)])
def test_output_is_that_of_the_formula(depth: int, per_block: int) -> None:
    driven = Driven(UNet(), depth, per_block)
    driven.randomize()
    weights = [float(np.asarray(w)) for link in driven.links for w in link.get_weights()]
    assert len(weights) == depth // 2
    assert_close(driven(X, branches(depth * per_block)), by_hand(weights, depth, per_block))


def test_weights_start_at_one_or_where_they_are_told() -> None:
    assert_close(Driven(UNet(), 4)(X, branches(4)), by_hand([1.0, 1.0], 4, 1))
    assert_close(Driven(UNet(init=0.25), 4)(X, branches(4)), by_hand([0.25, 0.25], 4, 1))


def test_without_weight_the_stack_is_plain() -> None:
    assert_close(Driven(UNet(init=0.0), 5)(X, branches(5)), plain(X, 5))


def test_the_last_of_one_half_goes_to_the_first_of_the_other() -> None:
    """Each skip's weight alone must make the output depend on the stream that the formula names."""
    depth = 6
    for pair in range(3):
        driven = Driven(UNet(init=0.0), depth)
        driven.links[3 + pair].set_weights([np.array(2.0, "float32")])
        weights = [2.0 if i == pair else 0.0 for i in range(3)]
        assert_close(driven(X, branches(depth)), by_hand(weights, depth, 1))


def test_coefficients_are_those_of_the_table() -> None:
    driven = Driven(UNet(init=0.5), 4)
    rows = (X, X, X)
    pushing = driven.links[0].coefficients((X,), DepthContext())
    assert (pushing.read, pushing.transport, pushing.write) == ([1], None, [1])
    popping = driven.links[3].coefficients(rows, DepthContext())
    assert [_plain(v) for v in popping.read] == [1, 0, 0.5]
    assert [[_plain(v) for v in row] for row in popping.transport] == [[1, 0, 0.5], [0, 1, 0]]
    assert popping.write == [1, 0]


def _plain(value: Any) -> float:
    return value if isinstance(value, int) else float(to_numpy(ops.convert_to_tensor(value)))


def test_every_weight_learns() -> None:
    assert_no_zero_gradient(Driven(UNet(), 5), 5)


def test_configuration_comes_back() -> None:
    topology = UNet(init=0.25, dtype="mixed_bfloat16")
    assert_config_comes_back(topology)
    assert topology.get_config()["init"] == 0.25
    assert_link_config_comes_back(Driven(topology, 2).links[1])
