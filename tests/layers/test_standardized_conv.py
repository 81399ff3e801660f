"""Weight standardisation: a plain convolution with the kernel of the formula in NumPy."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest

from contract import assert_close, assert_layer_contract, to_numpy
from keras_residual.layers.standardized_conv import WSConv2D


def test_contract() -> None:
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


def test_equal_weights_are_not_divided_by_zero() -> None:
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
