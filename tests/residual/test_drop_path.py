"""Stochastic depth: which rows go, what is left, and that the mean stays."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
from keras import ops

from backend_helpers import gradients
from contract import assert_close, assert_layer_contract, to_numpy
from keras_residual.residual.drop_path import DropPath

X = np.random.default_rng(0).normal(size=(400, 3, 4)).astype("float32")


def kept_rows(y, x, rate):
    """Which rows were kept; raises where a row is neither 0 nor `x / (1 - rate)`."""
    y = y.reshape(len(y), -1)
    expected = (x / (1 - rate)).reshape(len(x), -1)
    zero = (y == 0).all(axis=1)
    kept = np.isclose(y, expected, rtol=1e-5).all(axis=1)
    assert (zero ^ kept).all(), "a row is neither dropped nor kept whole"
    return kept


@pytest.mark.parametrize("mode", ["row", "batch"])
def test_contract(mode):
    assert_layer_contract(lambda: DropPath(0.3, mode=mode), (2, 3, 4), output_shape=(2, 3, 4))


@pytest.mark.parametrize("rank", [1, 2, 3, 4, 5])
def test_any_rank(rank):
    x = np.ones((50, *[2] * (rank - 1)), "float32")
    kept = kept_rows(to_numpy(DropPath(0.5, seed=1)(x, training=True)), x, 0.5)
    assert 0 < kept.sum() < 50


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_each_row_is_dropped_whole_or_divided(rate):
    layer = DropPath(rate, seed=1)
    kept = np.concatenate([kept_rows(to_numpy(layer(X, training=True)), X, rate) for _ in range(5)])
    # 2000 draws: a standard deviation is at most 0.011
    assert kept.mean() == pytest.approx(1 - rate, abs=0.045)


def test_mean_over_draws_is_the_input():
    layer = DropPath(0.4, seed=2)
    ones = np.ones((2000, 2), "float32")
    total = sum(to_numpy(layer(ones, training=True)).mean() for _ in range(5)) / 5
    assert total == pytest.approx(1.0, abs=0.04)
    assert_close(layer(X, training=False), X, 0)


def test_batch_mode_drops_all_or_nothing():
    layer = DropPath(0.5, mode="batch", seed=3)
    kept = [kept_rows(to_numpy(layer(X[:8], training=True)), X[:8], 0.5) for _ in range(40)]
    assert all(rows.all() or not rows.any() for rows in kept)
    assert 8 <= sum(rows.all() for rows in kept) <= 32


@pytest.mark.parametrize("training", [None, False])
def test_does_nothing_at_inference(training):
    assert_close(DropPath(0.9)(X, training=training), X, 0)


def test_rate_zero_does_nothing():
    assert_close(DropPath(0.0)(X, training=True), X, 0)


def test_draws_follow_the_seed_and_move_on():
    first, second = DropPath(0.5, seed=7), DropPath(0.5, seed=7)
    draws = [to_numpy(first(X, training=True)) for _ in range(2)]
    for draw in draws:
        np.testing.assert_array_equal(draw, to_numpy(second(X, training=True)))
    assert (draws[0] != draws[1]).any()
    assert (draws[0] != to_numpy(DropPath(0.5, seed=8)(X, training=True))).any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_keeps_the_rate(dtype):
    x = ops.cast(np.ones((4000, 1), "float32"), dtype)
    y = DropPath(0.001, seed=4, dtype=dtype)(x, training=True)
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    # In bfloat16 a uniform draw has 8 bits: 0 would come once in 256, four times the rate.
    assert np.mean(to_numpy(y) == 0) < 0.0025


def test_a_dropped_row_that_overflowed_is_zero():
    x = np.full((64, 2), np.inf, "float32")
    y = to_numpy(DropPath(0.5, seed=5)(x, training=True))
    assert set(np.unique(y)) == {0.0, np.inf}


def test_gradient_is_that_of_the_kept_rows():
    layer = DropPath(0.5, seed=6)
    x = np.ones((64, 1), "float32")
    seen = {}

    def call(x):
        y = layer(x, training=True)
        seen["y"] = y
        return y

    (gradient,), _ = gradients(call, [x])
    values = np.unique((gradient > 0).ravel())
    assert values.tolist() == [False, True]
    assert (gradient[gradient > 0] > 0.9).all()  # 2 times weights of at least 0.5


def test_draws_anew_in_every_step_of_a_compiled_fit():
    class Catch(keras.layers.Layer):
        def build(self, shape):
            self.sums = self.add_weight(shape=(4,), initializer="zeros", trainable=False)
            self.step = self.add_weight(shape=(), initializer="zeros", trainable=False, dtype="int32")

        def call(self, x):
            here = ops.cast(ops.arange(4) == self.step, x.dtype)
            self.sums.assign(self.sums + here * ops.sum(ops.cast(x != 0, x.dtype)))
            self.step.assign(self.step + 1)
            return x

    catch = Catch()
    model = keras.Sequential([keras.Input((1,)), DropPath(0.5, seed=1), catch, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((400, 1), "float32"), np.zeros((400, 1), "float32"), batch_size=100, epochs=1, verbose=0)
    counts = catch.get_weights()[0]
    assert len(set(counts.tolist())) > 1
    assert (counts > 25).all()
    assert (counts < 75).all()


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: DropPath(1.0, name="d"),
            ValueError,
            "DropPath 'd': `rate` must be a number in [0, 1), but received 1.0 (float).",
        ),
        (
            lambda: DropPath(-0.1, name="d"),
            ValueError,
            "DropPath 'd': `rate` must be a number in [0, 1), but received -0.1 (float).",
        ),
        (
            lambda: DropPath("a", name="d"),
            TypeError,
            "DropPath 'd': `rate` must be a number in [0, 1), but received 'a' (str).",
        ),
        (
            lambda: DropPath(0.1, mode="rows", name="d"),
            ValueError,
            "DropPath 'd': unknown name for `mode`: 'rows'. Did you mean 'row'? Known: row, batch.",
        ),
        (
            lambda: DropPath(0.1, mode=1, name="d"),
            TypeError,
            "DropPath 'd': `mode` must be one of 'row', 'batch', but received 1 (int).",
        ),
    ],
)
def test_arguments_are_checked(make, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        make()
