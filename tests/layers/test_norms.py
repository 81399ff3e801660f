"""EvoNorm-S0 and filter response norm: their formulas, their precision, any size."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
from keras import ops

from contract import assert_close, assert_layer_contract, perturb, to_numpy
from keras_residual.layers.norms import EvoNormS0, FilterResponseNorm


def test_contract_of_evonorm() -> None:
    assert_layer_contract(lambda: EvoNormS0(4, data_format="channels_last"), (2, 6, 8), output_shape=(2, 6, 8))


@pytest.mark.parametrize("activation", [True, False])
def test_contract_with_channels_first_of_evonorm(activation) -> None:
    def make() -> keras.Layer:
        return EvoNormS0(2, epsilon=1e-3, apply_activation=activation, data_format="channels_first")

    assert_layer_contract(make, (2, 8, 3, 5), output_shape=(2, 8, 3, 5), masks=False)


def reference(x, weights, groups, epsilon):
    """By loops over samples and groups, channels last."""
    gamma, beta, v = weights
    x = x.astype("float64")
    y = np.empty_like(x)
    width = x.shape[-1] // groups
    for b in range(len(x)):
        for first in range(0, x.shape[-1], width):
            part = x[b, ..., first : first + width]
            y[b, ..., first : first + width] = part / np.sqrt(part.var() + epsilon)
    return (y * np.exp(-np.logaddexp(0, -v * x)) * gamma + beta).astype("float32")


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("shape", [(2, 7, 6), (2, 5, 4, 6), (2, 3, 2, 4, 6)])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_formula_of_evonorm(shape, data_format, groups) -> None:
    # Means that differ from channel to channel belong to the variance of a group.
    x = (np.random.default_rng(0).normal(size=shape) + np.arange(6)).astype("float32")
    given = x if data_format == "channels_last" else np.moveaxis(x, -1, 1)
    layer = EvoNormS0(groups, epsilon=1e-2, data_format=data_format)
    layer.build(given.shape)
    perturb(layer)
    assert [w.name for w in layer.weights] == ["gamma", "beta", "v"]
    y = to_numpy(layer(given))
    y = y if data_format == "channels_last" else np.moveaxis(y, 1, -1)
    assert_close(y, reference(x, layer.get_weights(), groups, 1e-2))


def test_without_activation_it_is_a_scale_and_a_shift() -> None:
    layer = EvoNormS0(5, apply_activation=False, data_format="channels_last")  # no group is formed of 4 channels
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 4)).astype("float32")
    layer.build(x.shape)
    perturb(layer)
    gamma, beta = layer.get_weights()
    assert_close(layer(x), x * gamma + beta)


def test_a_large_mean_does_not_swallow_the_variance() -> None:
    x = (1000 + np.random.default_rng(0).normal(size=(1, 16, 16, 2))).astype("float32")
    layer = EvoNormS0(1, data_format="channels_last")
    assert_close(layer(x), reference(x, (1, 0, 1), 1, 1e-5), 1e-4)


@pytest.mark.parametrize("dtype", ["float16", "mixed_float16"])
def test_statistics_of_half_precision_do_not_overflow_of_evonorm(dtype) -> None:
    x = ops.cast(300 * np.random.default_rng(0).normal(size=(1, 16, 16, 2)), "float16")
    y = to_numpy(EvoNormS0(1, dtype=dtype, data_format="channels_last")(x))
    assert_close(y.astype("float32"), reference(to_numpy(x), (1, 0, 1), 1, 1e-5), 3e-3)


def test_steps_of_padding_do_not_count_of_evonorm() -> None:
    layer = EvoNormS0(2, data_format="channels_last")
    x = np.random.default_rng(0).normal(2, size=(1, 6, 8)).astype("float32")
    short = to_numpy(layer(x[:, :4]))
    x[:, 4:] = 0
    assert_close(to_numpy(layer(keras.layers.Masking()(x)))[:, :4], short)
    assert np.abs(to_numpy(layer(x))[:, :4] - short).max() > 1e-3


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_unknown_sizes_of_evonorm(data_format) -> None:
    shape = (None, None, 8) if data_format == "channels_last" else (8, None, None)
    layer = EvoNormS0(4, data_format=data_format)
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    x = np.random.default_rng(0).normal(size=[2, *(5 if size is None else size for size in shape)]).astype("float32")
    assert_close(model.predict(x, verbose=0), layer(x))


@pytest.mark.any_backend
def test_arguments_come_back_of_evonorm() -> None:
    layer = EvoNormS0(4, epsilon=1e-3, apply_activation=False, data_format="channels_first")
    copy = EvoNormS0.from_config(layer.get_config())
    found = (copy.groups, copy.epsilon, copy.apply_activation, copy.data_format)
    assert found == (4, 1e-3, False, "channels_first")


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: EvoNormS0(0, name="e"),
            ValueError,
            "`groups` must be a whole number of at least 1, but received 0 (int).",
        ),
        (
            lambda: EvoNormS0(epsilon=0.0, name="e"),
            ValueError,
            "`epsilon` must be a number above 0, but received 0.0 (float).",
        ),
        (
            lambda: EvoNormS0(apply_activation="relu", name="e"),
            TypeError,
            "`apply_activation` must be True or False, but received 'relu' (str).",
        ),
        (
            lambda: EvoNormS0(name="e", data_format="channels_last").build((None, 4, 4, 48)),
            ValueError,
            "`groups` must be a divisor of the 48 channels, but received 32 (int).",
        ),
    ],
)
def test_arguments_are_checked_of_evonorm(make, error, message) -> None:
    with pytest.raises(error, match="^" + re.escape(f"EvoNormS0 'e': {message}") + "$"):
        make()


def test_contract_of_response_norm() -> None:
    assert_layer_contract(lambda: FilterResponseNorm(data_format="channels_last"), (2, 6, 8), output_shape=(2, 6, 8))


@pytest.mark.parametrize("threshold", [True, False])
def test_contract_with_channels_first_of_response_norm(threshold) -> None:
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
def test_formula_of_response_norm(shape, data_format, threshold) -> None:
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
def test_statistics_of_half_precision_do_not_overflow_of_response_norm(dtype) -> None:
    x = ops.cast(1000 * np.random.default_rng(0).normal(size=(1, 16, 16, 2)), "float16")
    y = to_numpy(FilterResponseNorm(dtype=dtype, apply_threshold=False, data_format="channels_last")(x))
    assert_close(y.astype("float32"), normalised(to_numpy(x), 1, 0, 1e-5), 3e-3)


def test_steps_of_padding_do_not_count_of_response_norm() -> None:
    layer = FilterResponseNorm(data_format="channels_last")
    x = np.random.default_rng(0).normal(2, size=(1, 6, 8)).astype("float32")
    short = to_numpy(layer(x[:, :4]))
    x[:, 4:] = 0
    assert_close(to_numpy(layer(keras.layers.Masking()(x)))[:, :4], short)
    assert np.abs(to_numpy(layer(x))[:, :4] - short).max() > 1e-3


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_unknown_sizes_of_response_norm(data_format) -> None:
    shape = (None, None, 8) if data_format == "channels_last" else (8, None, None)
    layer = FilterResponseNorm(data_format=data_format)
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    x = np.random.default_rng(0).normal(size=[2, *(5 if size is None else size for size in shape)]).astype("float32")
    assert_close(model.predict(x, verbose=0), layer(x))


@pytest.mark.any_backend
def test_arguments_come_back_of_response_norm() -> None:
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
def test_arguments_are_checked_of_response_norm(arguments, error, message) -> None:
    with pytest.raises(error, match="^" + re.escape(f"FilterResponseNorm 'f': {message}") + "$"):
        FilterResponseNorm(**arguments, name="f")
