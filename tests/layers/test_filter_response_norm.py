"""Filter response norm: the formula in NumPy, statistics that hold in half precision, sequences with padding."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
from keras import ops

from contract import assert_close, assert_layer_contract, perturb, to_numpy
from keras_residual.layers.filter_response_norm import FilterResponseNorm


def test_contract() -> None:
    assert_layer_contract(lambda: FilterResponseNorm(data_format="channels_last"), (2, 6, 8), output_shape=(2, 6, 8))


@pytest.mark.parametrize("threshold", [True, False])
def test_contract_with_channels_first(threshold) -> None:
    def make() -> keras.Layer:
        return FilterResponseNorm(epsilon=1e-3, apply_threshold=threshold, data_format="channels_first")

    assert_layer_contract(make, (2, 8, 3, 5), output_shape=(2, 8, 3, 5), masks=False)


def normalised(x, gamma, beta, epsilon):
    x = x.astype("float64")
    mean_square = np.square(x).mean(axis=tuple(range(1, x.ndim - 1)), keepdims=True)
    return (gamma * x / np.sqrt(mean_square + epsilon) + beta).astype("float32")


@pytest.mark.parametrize("threshold", [True, False])
@pytest.mark.parametrize("shape", [(2, 7, 6), (2, 5, 4, 6), (2, 3, 2, 4, 6)])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_formula(shape, data_format, threshold) -> None:
    x = np.random.default_rng(0).normal(0.5, size=shape).astype("float32")
    given = x if data_format == "channels_last" else np.moveaxis(x, -1, 1)
    layer = FilterResponseNorm(epsilon=0.05, apply_threshold=threshold, data_format=data_format)
    layer.build(given.shape)
    perturb(layer)
    assert [w.name for w in layer.weights] == ["gamma", "beta", *(["tau"] if threshold else [])]
    gamma, beta, *tau = layer.get_weights()
    expected = normalised(x, gamma, beta, 0.05)
    if threshold:
        assert 0.1 < (expected < tau[0]).mean() < 0.9
        expected = np.maximum(expected, tau[0])
    y = to_numpy(layer(given))
    assert_close(y if data_format == "channels_last" else np.moveaxis(y, 1, -1), expected)


@pytest.mark.parametrize("dtype", ["float16", "mixed_float16"])
def test_statistics_of_half_precision_do_not_overflow(dtype) -> None:
    x = ops.cast(1000 * np.random.default_rng(0).normal(size=(1, 16, 16, 2)), "float16")
    y = to_numpy(FilterResponseNorm(dtype=dtype, apply_threshold=False, data_format="channels_last")(x))
    assert_close(y.astype("float32"), normalised(to_numpy(x), 1, 0, 1e-5), 3e-3)


def test_steps_of_padding_do_not_count() -> None:
    layer = FilterResponseNorm(data_format="channels_last")
    x = np.random.default_rng(0).normal(2, size=(1, 6, 8)).astype("float32")
    short = to_numpy(layer(x[:, :4]))
    x[:, 4:] = 0
    assert_close(to_numpy(layer(keras.layers.Masking()(x)))[:, :4], short)
    assert np.abs(to_numpy(layer(x))[:, :4] - short).max() > 1e-3


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_unknown_sizes(data_format) -> None:
    shape = (None, None, 8) if data_format == "channels_last" else (8, None, None)
    layer = FilterResponseNorm(data_format=data_format)
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    x = np.random.default_rng(0).normal(size=[2, *(5 if size is None else size for size in shape)]).astype("float32")
    assert_close(model.predict(x, verbose=0), layer(x))


@pytest.mark.any_backend
def test_arguments_come_back() -> None:
    layer = FilterResponseNorm(epsilon=1e-3, apply_threshold=False, data_format="channels_first")
    copy = FilterResponseNorm.from_config(layer.get_config())
    assert (copy.epsilon, copy.apply_threshold, copy.data_format) == (1e-3, False, "channels_first")


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"epsilon": 0.0}, ValueError, "`epsilon` must be a number above 0, but received 0.0 (float)."),
        ({"apply_threshold": 1}, TypeError, "`apply_threshold` must be True or False, but received 1 (int)."),
    ],
)
def test_arguments_are_checked(arguments, error, message) -> None:
    with pytest.raises(error, match="^" + re.escape(f"FilterResponseNorm 'f': {message}") + "$"):
        FilterResponseNorm(**arguments, name="f")
