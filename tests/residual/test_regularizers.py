"""Stochastic depth, Shake-Shake and ShakeDrop: what is drawn, what it scales, forward and backward."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
from keras import ops

from backend_helpers import gradients, weighted_sum
from contract import assert_close, assert_layer_contract, to_numpy
from keras_residual._backend import scale_with_other_gradient
from keras_residual.residual.regularizers import DropPath, ShakeDrop, ShakeShake
from keras_residual.residual.scales import Scale

DROP_PATH_X = np.random.default_rng(0).normal(size=(400, 3, 4)).astype("float32")


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
    kept = np.concatenate([kept_rows(to_numpy(layer(DROP_PATH_X, training=True)), DROP_PATH_X, rate) for _ in range(5)])
    # 2000 draws: a standard deviation is at most 0.011
    assert kept.mean() == pytest.approx(1 - rate, abs=0.045)


def test_mean_over_draws_is_the_input():
    layer = DropPath(0.4, seed=2)
    ones = np.ones((2000, 2), "float32")
    total = sum(to_numpy(layer(ones, training=True)).mean() for _ in range(5)) / 5
    assert total == pytest.approx(1.0, abs=0.04)
    assert_close(layer(DROP_PATH_X, training=False), DROP_PATH_X, 0)


def test_batch_mode_drops_all_or_nothing():
    layer = DropPath(0.5, mode="batch", seed=3)
    kept = [kept_rows(to_numpy(layer(DROP_PATH_X[:8], training=True)), DROP_PATH_X[:8], 0.5) for _ in range(40)]
    assert all(rows.all() or not rows.any() for rows in kept)
    assert 8 <= sum(rows.all() for rows in kept) <= 32


@pytest.mark.parametrize("training", [None, False])
def test_does_nothing_at_inference(training):
    assert_close(DropPath(0.9)(DROP_PATH_X, training=training), DROP_PATH_X, 0)


def test_rate_zero_does_nothing():
    assert_close(DropPath(0.0)(DROP_PATH_X, training=True), DROP_PATH_X, 0)


def test_draws_follow_the_seed_and_move_on_of_drop_path():
    first, second = DropPath(0.5, seed=7), DropPath(0.5, seed=7)
    draws = [to_numpy(first(DROP_PATH_X, training=True)) for _ in range(2)]
    for draw in draws:
        np.testing.assert_array_equal(draw, to_numpy(second(DROP_PATH_X, training=True)))
    assert (draws[0] != draws[1]).any()
    assert (draws[0] != to_numpy(DropPath(0.5, seed=8)(DROP_PATH_X, training=True))).any()


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
def test_arguments_are_checked_of_drop_path(make, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        make()


SHAKE_X = np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32")
ROWS = np.ones((500, 1), "float32")


def weights_of(shape):
    """The weights that `backend_helpers.gradients` puts on the elements of the output."""
    (found,), _ = gradients(lambda x: x, [np.zeros(shape, "float32")])
    return found


def test_weighted_sum_tells_elements_apart():
    assert len(np.unique(weights_of((3, 4)))) == 12
    assert to_numpy(weighted_sum(SHAKE_X)).shape == ()


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 1), (3, 5, 4)])
def test_gradient_is_scaled_by_the_backward_factor(shape):
    rng = np.random.default_rng(1)
    forward, backward = (rng.normal(size=shape).astype("float32") for _ in range(2))
    assert_close(
        scale_with_other_gradient(keras.ops.convert_to_tensor(SHAKE_X), forward, backward), SHAKE_X * forward, 1e-6
    )
    (by_x, by_forward, by_backward), _ = gradients(scale_with_other_gradient, [SHAKE_X, forward, backward])
    assert_close(by_x, weights_of(SHAKE_X.shape) * backward, 1e-6)
    for gradient in (by_forward, by_backward):
        assert gradient is None or not gradient.any()


@pytest.mark.parametrize("mode", ["row", "batch"])
def test_shake_shake_contract(mode):
    def make():
        layers = keras.layers
        return ShakeShake([layers.Dense(6), [layers.Dense(5, "tanh"), layers.Dense(6)]], mode=mode)

    assert_layer_contract(make, (2, 3, 4), output_shape=(2, 3, 6))


@pytest.mark.parametrize("mode", ["row", "batch"])
def test_shake_drop_contract(mode):
    assert_layer_contract(lambda: ShakeDrop(0.5, mode=mode), (2, 3, 4), output_shape=(2, 3, 4))


@pytest.mark.any_backend
def test_shake_shake_hands_a_mask_on_where_both_branches_do():
    conv = keras.layers.Conv1D(3, 1)
    assert not ShakeShake([keras.layers.Dense(3), conv]).supports_masking
    last_step = [keras.layers.LSTM(3), keras.layers.Dense(3)]
    assert ShakeShake([last_step, keras.layers.LSTM(3)]).compute_mask(None, [[True, False]]) is None


def test_shake_shake_is_the_mean_of_both_at_inference():
    shake = ShakeShake([Scale(1.0), Scale(3.0)])
    assert_close(shake(SHAKE_X), 2 * SHAKE_X, 1e-6)


def test_shake_shake_draws_between_the_branches_and_keeps_the_mean():
    shake = ShakeShake([Scale(0.0), Scale(1.0)], seed=1)
    y = np.concatenate([to_numpy(shake(ROWS, training=True)) for _ in range(4)])
    assert (y >= 0).all()
    assert (y <= 1).all()
    assert y.mean() == pytest.approx(0.5, abs=0.03)
    assert y.std() == pytest.approx(12**-0.5, abs=0.02)


def test_shake_shake_gradients_follow_another_draw():
    # F_1 = x and F_2 = 0, then the other way about: forward and gradient show a and b themselves.
    for first, second in ((1.0, 0.0), (0.0, 1.0)):
        shake = ShakeShake([Scale(first), Scale(second)], seed=2)
        forward = to_numpy(ShakeShake([Scale(first), Scale(second)], seed=2)(ROWS, training=True))
        (gradient,), _ = gradients(lambda x, shake=shake: shake(x, training=True), [ROWS])
        backward = gradient / weights_of(ROWS.shape)
        assert (backward >= 0).all()
        assert (backward <= 1).all()
        assert backward.mean() == pytest.approx(0.5, abs=0.06)
        assert np.abs(np.corrcoef(forward.ravel(), backward.ravel())[0, 1]) < 0.15


def test_shake_shake_gradient_factors_of_both_branches_sum_to_one():
    shake = ShakeShake([Scale(1.0), Scale(1.0)], seed=3)
    (gradient,), _ = gradients(lambda x: shake(x, training=True), [ROWS])
    assert_close(gradient, weights_of(ROWS.shape), 1e-5)


def test_shake_shake_in_batch_mode_has_one_factor():
    shake = ShakeShake([Scale(0.0), Scale(1.0)], mode="batch", seed=1)
    first, second = (to_numpy(shake(ROWS, training=True)) for _ in range(2))
    assert np.ptp(first) == 0
    assert first[0] != second[0]


@pytest.mark.parametrize(
    ("rate", "alpha", "factor"), [(0.5, (-1, 1), 0.5), (0.3, (-1, 1), 0.7), (0.4, (0, 1), 0.8), (1.0, (0, 1), 0.5)]
)
def test_shake_drop_at_inference_has_the_mean_factor(rate, alpha, factor):
    layer = ShakeDrop(rate, alpha_range=alpha, seed=1)
    assert_close(layer(SHAKE_X), SHAKE_X * factor, 1e-6)
    mean = np.mean([to_numpy(layer(ROWS, training=True)).mean() for _ in range(10)])
    assert mean == pytest.approx(factor, abs=0.03)


def test_shake_drop_of_rate_zero_does_nothing():
    assert_close(ShakeDrop(0)(SHAKE_X, training=True), SHAKE_X, 0)
    assert_close(ShakeDrop(0)(SHAKE_X), SHAKE_X, 0)


def test_shake_drop_scales_only_what_is_not_kept_and_its_gradient_by_another_draw():
    forward = to_numpy(ShakeDrop(0.5, seed=4)(ROWS, training=True))
    layer = ShakeDrop(0.5, seed=4)
    (gradient,), _ = gradients(lambda x: layer(x, training=True), [ROWS])
    backward = gradient / weights_of(ROWS.shape)
    kept = np.isclose(forward, 1, atol=1e-6)
    assert kept.mean() == pytest.approx(0.5, abs=0.08)
    assert_close(backward[kept], np.ones(kept.sum(), "float32"), 1e-5)
    dropped_forward, dropped_backward = forward[~kept], backward[~kept]
    assert dropped_forward.min() < -0.8
    assert dropped_forward.max() > 0.8
    assert dropped_backward.min() >= 0
    assert dropped_backward.mean() == pytest.approx(0.5, abs=0.08)
    assert np.abs(np.corrcoef(dropped_forward, dropped_backward)[0, 1]) < 0.2


def test_shake_drop_ranges_bound_the_factors():
    layer = ShakeDrop(1.0, alpha_range=(0.2, 0.2), beta_range=(3.0, 3.0))
    assert_close(layer(SHAKE_X, training=True), 0.2 * SHAKE_X, 1e-6)
    (gradient,), _ = gradients(lambda x: layer(x, training=True), [SHAKE_X])
    assert_close(gradient, 3 * weights_of(SHAKE_X.shape), 1e-5)


def test_draws_follow_the_seed_and_move_on_of_shake():
    for make in (lambda: ShakeDrop(0.5, seed=5), lambda: ShakeShake([Scale(0.0), Scale(1.0)], seed=5)):
        first, second = make(), make()
        draws = [to_numpy(first(ROWS, training=True)) for _ in range(2)]
        for draw in draws:
            np.testing.assert_array_equal(draw, to_numpy(second(ROWS, training=True)))
        assert (draws[0] != draws[1]).any()


@pytest.mark.any_backend
def test_branches_of_unequal_shape_are_refused():
    message = (
        "ShakeShake 's': the first branch's output has shape (None, 3) and the second's has shape (None, 4), "
        "which cannot be merged. Give both branches outputs of one shape."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ShakeShake([keras.layers.Dense(3), keras.layers.Dense(4)], name="s").build((None, 2))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: ShakeShake([Scale(1.0)], name="s"),
            ValueError,
            "ShakeShake 's': `branches` must be two branches, each a layer or a list of layers, but received [<Scale",
        ),
        (
            lambda: ShakeShake([[], Scale(1.0)], name="s"),
            TypeError,
            "ShakeShake 's': `branches` must be two branches, each a layer or a list of layers, "
            "but received [] (list).",
        ),
        (lambda: ShakeShake([Scale(1.0), "relu"], name="s"), TypeError, "received 'relu' (str)."),
        (
            lambda: ShakeDrop(1.1, name="s"),
            ValueError,
            "ShakeDrop 's': `rate` must be a number in [0, 1], but received 1.1 (float).",
        ),
        (
            lambda: ShakeDrop(0.1, alpha_range=(1, -1), name="s"),
            ValueError,
            "ShakeDrop 's': `alpha_range` must be two numbers, low and high, with low <= high, "
            "but received (1, -1) (tuple).",
        ),
        (
            lambda: ShakeDrop(0.1, beta_range=1, name="s"),
            ValueError,
            "ShakeDrop 's': `beta_range` must be two numbers, low and high, with low <= high, but received 1 (int).",
        ),
        (lambda: ShakeDrop(0.1, mode="col", name="s"), ValueError, "ShakeDrop 's': unknown name for `mode`: 'col'."),
    ],
)
def test_arguments_are_checked_of_shake(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()
