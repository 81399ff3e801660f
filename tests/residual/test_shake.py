"""Shake-Shake and ShakeDrop: means, and gradients that follow their own draw."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest

from backend_helpers import gradients, weighted_sum
from contract import assert_close, assert_layer_contract, to_numpy
from keras_residual._backend import scale_with_other_gradient
from keras_residual.residual.scales import Scale
from keras_residual.residual.shake import ShakeDrop, ShakeShake

X = np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32")
ROWS = np.ones((500, 1), "float32")


def weights_of(shape):
    """The weights that `backend_helpers.gradients` puts on the elements of the output."""
    (found,), _ = gradients(lambda x: x, [np.zeros(shape, "float32")])
    return found


def test_weighted_sum_tells_elements_apart():
    assert len(np.unique(weights_of((3, 4)))) == 12
    assert to_numpy(weighted_sum(X)).shape == ()


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 1), (3, 5, 4)])
def test_gradient_is_scaled_by_the_backward_factor(shape):
    rng = np.random.default_rng(1)
    forward, backward = (rng.normal(size=shape).astype("float32") for _ in range(2))
    assert_close(scale_with_other_gradient(keras.ops.convert_to_tensor(X), forward, backward), X * forward, 1e-6)
    (by_x, by_forward, by_backward), _ = gradients(scale_with_other_gradient, [X, forward, backward])
    assert_close(by_x, weights_of(X.shape) * backward, 1e-6)
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
    assert_close(shake(X), 2 * X, 1e-6)


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
    assert_close(layer(X), X * factor, 1e-6)
    mean = np.mean([to_numpy(layer(ROWS, training=True)).mean() for _ in range(10)])
    assert mean == pytest.approx(factor, abs=0.03)


def test_shake_drop_of_rate_zero_does_nothing():
    assert_close(ShakeDrop(0)(X, training=True), X, 0)
    assert_close(ShakeDrop(0)(X), X, 0)


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
    assert_close(layer(X, training=True), 0.2 * X, 1e-6)
    (gradient,), _ = gradients(lambda x: layer(x, training=True), [X])
    assert_close(gradient, 3 * weights_of(X.shape), 1e-5)


def test_draws_follow_the_seed_and_move_on():
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
def test_arguments_are_checked(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()
