"""Convolutions with standardised kernels: the kernel of the formula, and what it does to variances."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest

from contract import assert_close, assert_layer_contract, to_numpy
from keras_residual.layers.weight_standardization import (
    RELU_GAMMA,
    ScaledWSConv1D,
    ScaledWSConv2D,
    ScaledWSConv3D,
    WSConv2D,
)
from keras_residual.residual.scales import FixedScale


def test_contract_of_plain() -> None:
    def make() -> keras.Layer:
        return WSConv2D(3, 3, padding="same", epsilon=1e-3, data_format="channels_last")

    assert_layer_contract(make, (2, 5, 5, 4), output_shape=(2, 5, 5, 3), masks=False)


@pytest.mark.parametrize("epsilon", [1e-8, 0.5])
@pytest.mark.parametrize(
    "kwargs",
    [{}, {"groups": 2}, {"strides": 2, "padding": "valid"}, {"use_bias": False, "dilation_rate": 2}],
)
def test_it_is_a_convolution_with_the_kernel_of_the_formula(kwargs: dict[str, Any], epsilon: float) -> None:
    kwargs = {"padding": "same", "data_format": "channels_last", **kwargs}
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 7, 6, 4)).astype("float32")
    layer, plain = WSConv2D(6, 3, epsilon=epsilon, **kwargs), keras.layers.Conv2D(6, 3, **kwargs)
    layer.build(x.shape)
    plain.build(x.shape)
    weights = {w.name: rng.normal(0.7, 1.3, size=w.shape).astype("float32") for w in layer.weights}
    assert set(weights) == {"kernel", "bias"} - (set() if kwargs.get("use_bias", True) else {"bias"})
    layer.set_weights([weights[w.name] for w in layer.weights])
    w = weights["kernel"].astype("float64")
    weights["kernel"] = ((w - w.mean(axis=(0, 1, 2))) / np.sqrt(w.var(axis=(0, 1, 2)) + epsilon)).astype("float32")
    plain.set_weights([weights[w.name] for w in plain.weights])
    assert_close(layer(x), plain(x))


def test_channels_first() -> None:
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 4)).astype("float32")
    last = WSConv2D(3, 3, padding="same", data_format="channels_last")
    first = WSConv2D(3, 3, padding="same", data_format="channels_first")
    expected = to_numpy(last(x))
    first.build((None, 4, 5, 6))
    first.set_weights(last.get_weights())
    assert_close(np.moveaxis(to_numpy(first(np.moveaxis(x, -1, 1))), 1, -1), expected)


def test_equal_weights_are_not_divided_by_zero_of_plain() -> None:
    layer = WSConv2D(2, 3, kernel_initializer="ones", data_format="channels_last")
    assert_close(layer(np.ones((1, 5, 5, 3))), np.zeros((1, 3, 3, 2)), 0)


def test_scale_and_mean_of_the_weights_are_of_no_account() -> None:
    x = np.random.default_rng(0).normal(size=(1, 5, 5, 3)).astype("float32")
    layer = WSConv2D(4, 3, use_bias=False, epsilon=1e-8, data_format="channels_last")
    before = to_numpy(layer(x))
    layer.set_weights([3 * layer.get_weights()[0] + 0.5])
    assert_close(layer(x), before)


@pytest.mark.any_backend
def test_epsilon_comes_back() -> None:
    assert WSConv2D.from_config(WSConv2D(2, 3, epsilon=1e-8).get_config()).epsilon == 1e-8


@pytest.mark.any_backend
def test_epsilon_must_be_positive() -> None:
    message = "WSConv2D 'c': `epsilon` must be a number above 0, but received 0 (int)."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        WSConv2D(2, 3, name="c", epsilon=0)


CONVOLUTIONS = {1: ScaledWSConv1D, 2: ScaledWSConv2D, 3: ScaledWSConv3D}


@pytest.mark.parametrize("rank", CONVOLUTIONS)
def test_contract_of_scaled(rank: int) -> None:
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


def test_equal_weights_are_not_divided_by_zero_of_scaled() -> None:
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
