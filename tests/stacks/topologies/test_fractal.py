"""FractalNet against its recursion, and its drop-path against what it promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from contract import assert_close, to_numpy
from keras_residual.residual.context import DepthContext
from keras_residual.stacks.topologies.fractal import Fractal
from stacks.topologies.history_driver import (
    Driven,
    X,
    assert_config_comes_back,
    assert_link_config_comes_back,
    branches,
    in_numpy,
)

Function = Callable[[np.ndarray], np.ndarray]


def blocks_of(depth: int, per_block: int) -> list[Function]:
    """Returns each block as its branches one after another."""
    functions = in_numpy(depth * per_block)

    def block(index: int) -> Function:
        def apply(x: np.ndarray) -> np.ndarray:
            for function in functions[index * per_block : (index + 1) * per_block]:
                x = function(x)
            return x

        return apply

    return [block(index) for index in range(depth)]


def columns_of(z: np.ndarray, count: int, blocks: list[Function]) -> tuple[list[np.ndarray], list[Function]]:
    """Returns what comes to the last join of `f_count`, by the recursion: `f_count = mean(f(f(z)), B(z))`.

    The means are collapsed: what comes to the join is a list, from the longest column on. Also returns the blocks that
    are left; within a fractal the columns' last blocks come last.
    """
    if count == 1:
        return [blocks[0](z)], blocks[1:]
    first, blocks = columns_of(z, count - 1, blocks)
    second, blocks = columns_of(np.mean(first, axis=0), count - 1, blocks)
    return [*second, blocks[0](z)], blocks[1:]


@pytest.mark.parametrize(("columns", "per_block"), [(1, 1), (2, 1), (3, 1), (4, 1), (3, 2)])
def test_output_is_that_of_the_recursion(columns: int, per_block: int) -> None:
    depth = 2**columns - 1
    expected, left = columns_of(X.astype("float64"), columns, blocks_of(depth, per_block))
    assert not left
    driven = Driven(Fractal(), depth, per_block)
    assert_close(driven(X, branches(depth * per_block)), np.mean(expected, axis=0))


def test_join_of_equal_inputs_is_the_input() -> None:
    assert_close(Driven(Fractal(), 15)(X, [lambda x: x] * 15), X)


def column_alone(column: int, columns: int) -> np.ndarray:
    """Returns what one column makes of the input if there is no other."""
    order = [c for time in range(1, 2 ** (columns - 1) + 1) for c in range(columns) if time % 2**c == 0]
    x = X.astype("float64")
    for block, c in zip(in_numpy(len(order)), order, strict=True):
        x = block(x) if c == column else x
    return x


def test_global_drop_path_is_one_column_alone() -> None:
    driven = Driven(Fractal(drop_path_rate=0.0, global_rate=1.0, seed=3), 7)
    expected = [column_alone(column, 3) for column in range(3)]
    seen = set()
    for _ in range(30):
        y = to_numpy(driven(X, branches(7), training=True))
        errors = [np.abs(y - e).max() for e in expected]
        assert min(errors) < 1e-5
        seen.add(int(np.argmin(errors)))
    assert seen == {0, 1, 2}


def test_local_drop_path_is_the_mean_of_those_alive() -> None:
    """At a rate next to 1 each join keeps one input, so that the output is what one path makes; never nothing."""
    driven = Driven(Fractal(drop_path_rate=0.999, global_rate=0.0, seed=3), 3)
    f, g, h = in_numpy(3)
    expected = [g(f(X)), h(X)]
    seen = set()
    for _ in range(20):
        y = to_numpy(driven(X, branches(3), training=True))
        errors = [np.abs(y - e).max() for e in expected]
        assert min(errors) < 1e-5
        seen.add(int(np.argmin(errors)))
    assert seen == {0, 1}


def test_each_input_of_a_join_is_dropped_at_the_rate() -> None:
    driven = Driven(Fractal(drop_path_rate=0.3, global_rate=0.0, seed=3), 7)
    join = driven.links[-1]
    weights = np.stack([to_numpy(join._weights(ops.convert_to_tensor(-1.0))) for _ in range(400)])
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-6)
    # Dropped with 0.3, but for the one third of the 0.027 of all three in which it is the one that stays.
    assert np.mean(weights == 0) == pytest.approx(0.3 - 0.027 / 3, abs=0.04)
    assert set(np.round(np.unique(weights), 3)) == {np.float32(v) for v in (0.0, 0.333, 0.5, 1.0)}


def test_share_of_calls_with_one_column() -> None:
    driven = Driven(Fractal(global_rate=0.25, seed=1), 7)
    drawn = np.array([float(to_numpy(driven.links[0]._draw_column())) for _ in range(400)])
    assert np.mean(drawn >= 0) == pytest.approx(0.25, abs=0.06)
    assert set(drawn) == {-1.0, 0.0, 1.0, 2.0}


def test_a_dropped_path_that_overflowed_leaves_no_trace() -> None:
    driven = Driven(Fractal(drop_path_rate=0.0, global_rate=1.0, seed=3), 3)
    functions: list[Any] = [lambda x: x, lambda x: x, lambda x: x * np.inf]
    finite = [np.isfinite(to_numpy(driven(X, functions, training=True))).all() for _ in range(20)]
    assert any(finite)
    assert not all(finite)  # the column that overflows acts alone in some calls


def test_at_inference_nothing_is_drawn() -> None:
    driven = Driven(Fractal(seed=3), 7)
    before = [to_numpy(link.seed_generator.state.value) for link in driven.links]
    assert_close(driven(X, branches(7)), driven(X, branches(7)), 0.0)
    for link, state in zip(driven.links, before, strict=True):
        np.testing.assert_array_equal(to_numpy(link.seed_generator.state.value), state)


def test_without_rates_training_is_inference() -> None:
    driven = Driven(Fractal(drop_path_rate=0.0, global_rate=0.0), 7)
    assert_close(driven(X, branches(7), training=True), driven(X, branches(7)))
    assert all(link.seed_generator is None for link in driven.links)


def test_coefficients_read_and_replace_one_column() -> None:
    link = Driven(Fractal(), 7).links[3]  # time 2's successor: column 0 alone
    found = link.coefficients((X, X, X), DepthContext())
    assert (found.read, found.write) == ([1, 0, 0], [1, 0, 0])
    assert found.transport == [[0, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.any_backend
@pytest.mark.parametrize(("depth", "near"), [(2, ("1 (1 columns)", "3 (2 columns)")), (10, ("7 (3", "15 (4"))])
def test_depth_that_no_fractal_has_is_refused(depth: int, near: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=r"`depth` must be 2\*\*C - 1") as caught:
        Driven(Fractal(), depth)
    assert all(part in str(caught.value) for part in near)
    with pytest.raises(ValueError, match="The nearest are"):
        Fractal().check(depth, 1, (None, 4))


@pytest.mark.any_backend
def test_rates_are_shares() -> None:
    with pytest.raises(ValueError, match=r"`global_rate` must be a number in \[0, 1\], but received 1.5"):
        Fractal(global_rate=1.5)
    with pytest.raises(ValueError, match="`drop_path_rate`"):
        Fractal(drop_path_rate=1.0)


def test_configuration_comes_back() -> None:
    topology = Fractal(drop_path_rate=0.25, global_rate=0.75, seed=4, dtype="mixed_bfloat16")
    assert_config_comes_back(topology)
    config = topology.get_config()
    assert (config["drop_path_rate"], config["global_rate"], config["seed"]) == (0.25, 0.75, 4)
    assert_link_config_comes_back(Driven(topology, 3).links[2])
    assert keras.config.floatx() == "float32"
