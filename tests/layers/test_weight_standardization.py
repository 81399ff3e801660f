"""Scaled weight standardisation: the reference code's formula in NumPy, and the variance that it is there to keep."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest

from contract import assert_close, assert_layer_contract, to_numpy
from keras_residual.layers.weight_standardization import RELU_GAMMA, ScaledWSConv1D, ScaledWSConv2D, ScaledWSConv3D
from keras_residual.residual.fixed_scale import FixedScale

CONVOLUTIONS = {1: ScaledWSConv1D, 2: ScaledWSConv2D, 3: ScaledWSConv3D}


@pytest.mark.parametrize("rank", CONVOLUTIONS)
def test_contract(rank: int) -> None:
    def make() -> keras.Layer:
        return CONVOLUTIONS[rank](3, 3, padding="same", gamma=1.5, epsilon=1e-3)

    shape = (2, *[5] * rank)
    assert_layer_contract(make, (*shape, 4), output_shape=(*shape, 3), masks=False)


def test_contract_of_a_fixed_scale() -> None:
    assert_layer_contract(FixedScale, (2, 3, 4), output_shape=(2, 3, 4))


def test_a_fixed_scale_is_a_weight_that_is_not_trained() -> None:
    scale = FixedScale()
    scale.build((None, 3))
    scale.set_weights([np.array(0.25)])
    x = np.ones((2, 3), "float32")
    assert_close(scale(x), x / 4, 1e-6)
    assert scale.trainable_variables == []


def reference(w: np.ndarray, gain: np.ndarray, gamma: float, epsilon: float) -> np.ndarray:
    """The formula of the authors' code, nfnets/base.py, written anew."""
    w = w.astype("float64")
    axes = tuple(range(w.ndim - 1))
    fan_in = np.prod(w.shape[:-1])
    scale = gain / np.sqrt(np.maximum(w.var(axis=axes) * fan_in, epsilon))
    return (gamma * (w - w.mean(axis=axes)) * scale).astype("float32")


@pytest.mark.parametrize("gamma", [1.0, RELU_GAMMA])
@pytest.mark.parametrize("kwargs", [{}, {"groups": 2}, {"strides": 2}, {"use_bias": False}])
@pytest.mark.parametrize("rank", CONVOLUTIONS)
def test_it_is_a_convolution_with_the_reference_kernel(rank: int, kwargs: dict[str, Any], gamma: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *[6] * rank, 4)).astype("float32")
    layer = CONVOLUTIONS[rank](6, 3, padding="same", gamma=gamma, **kwargs)
    layer.build(x.shape)
    # A mean that is not 0, and gains that are not 1.
    weights = {w.name: rng.normal(0.7, 1.3, size=w.shape).astype("float32") for w in layer.weights}
    layer.set_weights([weights[w.name] for w in layer.weights])

    plain = getattr(keras.layers, f"Conv{rank}D")(6, 3, padding="same", **kwargs)
    plain.build(x.shape)
    kernel = reference(weights["kernel"], weights["gain"], gamma, 1e-4)
    plain.set_weights([kernel if w.name == "kernel" else weights[w.name] for w in plain.weights])
    assert_close(layer(x), plain(x), 1e-5)


def test_one_dimension_can_be_causal() -> None:
    layer = ScaledWSConv1D(4, 3, padding="causal")
    x = np.random.default_rng(0).normal(size=(1, 8, 2)).astype("float32")
    changed = x.copy()
    changed[:, 5:] = 0
    before, after = to_numpy(layer(x)), to_numpy(layer(changed))
    assert before.shape == (1, 8, 4)
    np.testing.assert_array_equal(after[:, :5], before[:, :5])
    assert np.abs(after[:, 5] - before[:, 5]).max() > 0.01


def test_equal_weights_are_not_divided_by_zero() -> None:
    layer = ScaledWSConv2D(2, 3, kernel_initializer="ones")
    assert_close(layer(np.ones((1, 5, 5, 3))), np.zeros((1, 3, 3, 2)), 0)


@pytest.mark.any_backend
def test_gamma_makes_a_relu_of_unit_variance() -> None:
    x = np.random.default_rng(0).normal(size=2_000_000)
    assert pytest.approx(1.0, abs=5e-3) == np.var(RELU_GAMMA * np.maximum(x, 0))
    assert pytest.approx(1.7139588594436646, rel=1e-3) == RELU_GAMMA  # nfnets/base.py, by a simulation


@pytest.mark.parametrize("gamma", [1.0, RELU_GAMMA])
def test_unit_variance_stays_unit_variance_and_the_mean_zero(gamma: float) -> None:
    x = np.random.default_rng(0).normal(size=(64, 9, 9, 24)).astype("float32")
    if gamma != 1:
        x = np.maximum(x, 0)
    y = to_numpy(ScaledWSConv2D(256, 3, gamma=gamma)(x))
    assert 0.95 < y.var(axis=(0, 1, 2)).mean() < 1.05
    # Without the standardisation the means over pictures would differ from channel to channel.
    assert np.square(y.mean(axis=(0, 1, 2))).mean() < 0.01


@pytest.mark.parametrize(("argument", "value"), [("gamma", 0.0), ("epsilon", -1.0)])
def test_factors_must_be_positive(argument: str, value: float) -> None:
    message = f"ScaledWSConv2D 'c': `{argument}` must be a number above 0, but received {value} (float)."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ScaledWSConv2D(2, 3, name="c", **{argument: value})
