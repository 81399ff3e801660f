"""Squeeze-excite and efficient channel attention: their formulas, their arguments, any size."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest

from contract import assert_close, assert_layer_contract, perturb, to_numpy
from keras_residual.layers.channel_attention import (
    EfficientChannelAttention,
    SqueezeExcite,
    adaptive_kernel_size,
    inner_units,
)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_contract_of_squeeze_excite() -> None:
    def make() -> keras.Layer:
        return SqueezeExcite(0.5, divisor=2, activation="silu", gate="tanh", data_format="channels_last")

    assert_layer_contract(make, (2, 6, 8), output_shape=(2, 6, 8))


def test_contract_with_channels_first_of_squeeze_excite() -> None:
    def make() -> keras.Layer:
        return SqueezeExcite(0.5, divisor=4, activation=None, data_format="channels_first")

    assert_layer_contract(make, (2, 8, 3, 5), output_shape=(2, 8, 3, 5), masks=False)


@pytest.mark.parametrize("shape", [(2, 6, 8), (2, 5, 4, 8), (2, 3, 2, 4, 8)])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_formula_of_squeeze_excite(shape, data_format) -> None:
    layer = SqueezeExcite(0.5, divisor=1, data_format=data_format)
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    given = x if data_format == "channels_last" else np.moveaxis(x, -1, 1)
    layer.build(given.shape)
    perturb(layer)
    (w1, b1), (w2, b2) = layer.reduce.get_weights(), layer.expand.get_weights()
    means = x.mean(axis=tuple(range(1, x.ndim - 1)))
    gates = sigmoid(np.maximum(means @ w1 + b1, 0) @ w2 + b2)
    expected = x * gates.reshape(2, *[1] * (x.ndim - 2), 8)
    y = to_numpy(layer(given))
    assert_close(y if data_format == "channels_last" else np.moveaxis(y, 1, -1), expected)


def test_steps_of_padding_do_not_count_of_squeeze_excite() -> None:
    layer = SqueezeExcite(0.5, data_format="channels_last")
    x = np.random.default_rng(0).normal(size=(1, 6, 8)).astype("float32")
    short = to_numpy(layer(x[:, :4]))
    x[:, 4:] = 0
    assert_close(to_numpy(layer(keras.layers.Masking()(x)))[:, :4], short)
    assert np.abs(to_numpy(layer(x))[:, :4] - short).max() > 1e-3


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_unknown_sizes_of_squeeze_excite(data_format) -> None:
    shape = (None, None, 8) if data_format == "channels_last" else (8, None, None)
    layer = SqueezeExcite(data_format=data_format)
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    x = np.random.default_rng(0).normal(size=[2, *(5 if size is None else size for size in shape)]).astype("float32")
    assert_close(model.predict(x, verbose=0), layer(x))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("channels", "ratio", "divisor", "units"),
    [
        (64, 1 / 16, 8, 8),  # 4, raised to the divisor
        (256, 1 / 16, 8, 16),
        (200, 1 / 16, 8, 16),  # 12.5
        (320, 1 / 16, 8, 24),  # 20, halfway
        (176, 1 / 16, 8, 8),  # 11, rounded down by more than a tenth
        (64, 0.25, 8, 16),
        (64, 1 / 16, 1, 4),
        (2048, 1 / 16, 1, 128),
        (8, 1 / 16, 1, 1),
    ],
)
def test_inner_units(channels, ratio, divisor, units) -> None:
    assert inner_units(channels, ratio, divisor) == units
    layer = SqueezeExcite(ratio, divisor=divisor, data_format="channels_last")
    layer.build((None, 1, channels))
    assert (layer.reduce.units, layer.expand.units) == (units, channels)


@pytest.mark.any_backend
def test_arguments_come_back_of_squeeze_excite() -> None:
    layer = SqueezeExcite(0.25, divisor=2, activation="gelu", gate="hard_sigmoid", data_format="channels_first")
    copy = SqueezeExcite.from_config(layer.get_config())
    assert (copy.ratio, copy.divisor, copy.data_format) == (0.25, 2, "channels_first")
    assert (copy.activation, copy.gate) == (keras.activations.gelu, keras.activations.hard_sigmoid)


@pytest.mark.any_backend
def test_weights_have_paths_of_their_sub_layers() -> None:
    layer = SqueezeExcite(name="se", data_format="channels_last")
    layer(keras.KerasTensor((None, 3, 8)))
    expected = [f"se/{part}/{name}" for part in ("reduce", "expand") for name in ("kernel", "bias")]
    assert [w.path for w in layer.weights] == expected


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"ratio": 0}, ValueError, "`ratio` must be a number above 0, but received 0 (int)."),
        ({"divisor": 0}, ValueError, "`divisor` must be a whole number of at least 1, but received 0 (int)."),
        (
            {"gate": keras.layers.ReLU},
            TypeError,
            "`gate` must be a name or a function, not a layer, "
            "but received <class 'keras.src.layers.activations.relu.ReLU'> (type).",
        ),
        ({"activation": 3}, TypeError, "`activation` must be a name or a function, not a layer, but received 3 (int)."),
    ],
)
def test_arguments_are_checked(arguments, error, message) -> None:
    with pytest.raises(error, match="^" + re.escape(f"SqueezeExcite 's': {message}") + "$"):
        SqueezeExcite(**arguments, name="s")


@pytest.mark.any_backend
def test_a_misspelt_gate_is_named() -> None:
    start = "SqueezeExcite 's': unknown name for `gate`: 'sigmoit'. Did you mean 'sigmoid'? There are "
    with pytest.raises(ValueError, match="^" + re.escape(start)):
        SqueezeExcite(gate="sigmoit", name="s")


def test_contract_of_efficient() -> None:
    def make() -> keras.Layer:
        return EfficientChannelAttention(5, data_format="channels_last")

    assert_layer_contract(make, (2, 6, 8), output_shape=(2, 6, 8))


def test_contract_with_channels_first_of_efficient() -> None:
    def make() -> keras.Layer:
        return EfficientChannelAttention(data_format="channels_first")

    assert_layer_contract(make, (2, 8, 3, 5), output_shape=(2, 8, 3, 5), masks=False)


@pytest.mark.parametrize("kernel_size", [1, 3, 9])
@pytest.mark.parametrize("shape", [(2, 6, 7), (2, 5, 4, 7), (2, 3, 2, 4, 7)])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_formula_of_efficient(shape, data_format, kernel_size) -> None:
    rng = np.random.default_rng(0)
    layer = EfficientChannelAttention(kernel_size, data_format=data_format)
    x = rng.normal(size=shape).astype("float32")
    given = x if data_format == "channels_last" else np.moveaxis(x, -1, 1)
    layer.build(given.shape)
    kernel = rng.normal(size=(kernel_size, 1, 1)).astype("float32")
    layer.conv.set_weights([kernel])
    means = np.pad(x.mean(axis=tuple(range(1, x.ndim - 1))), [(0, 0), (kernel_size // 2,) * 2])
    sums = np.stack([means[:, i : i + kernel_size] @ kernel[:, 0, 0] for i in range(7)], axis=1)
    expected = x / (1 + np.exp(-sums)).reshape(2, *[1] * (x.ndim - 2), 7)
    y = to_numpy(layer(given))
    assert_close(y if data_format == "channels_last" else np.moveaxis(y, 1, -1), expected)


def test_steps_of_padding_do_not_count_of_efficient() -> None:
    layer = EfficientChannelAttention(data_format="channels_last")
    x = np.random.default_rng(0).normal(size=(1, 6, 8)).astype("float32")
    short = to_numpy(layer(x[:, :4]))
    x[:, 4:] = 0
    assert_close(to_numpy(layer(keras.layers.Masking()(x)))[:, :4], short)
    assert np.abs(to_numpy(layer(x))[:, :4] - short).max() > 1e-3


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_unknown_sizes_of_efficient(data_format) -> None:
    shape = (None, None, 8) if data_format == "channels_last" else (8, None, None)
    layer = EfficientChannelAttention(data_format=data_format)
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    x = np.random.default_rng(0).normal(size=[2, *(5 if size is None else size for size in shape)]).astype("float32")
    assert_close(model.predict(x, verbose=0), layer(x))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("channels", "size"), [(1, 3), (16, 3), (64, 3), (127, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7)]
)
def test_kernel_size_by_the_channels(channels, size) -> None:
    assert adaptive_kernel_size(channels) == size
    layer = EfficientChannelAttention(data_format="channels_last")
    layer.build((None, 1, channels))
    assert [tuple(w.shape) for w in layer.weights] == [(size, 1, 1)]


@pytest.mark.any_backend
def test_arguments_come_back_of_efficient() -> None:
    layer = EfficientChannelAttention(5, data_format="channels_first")
    copy = EfficientChannelAttention.from_config(layer.get_config())
    assert (copy.kernel_size, copy.data_format) == (5, "channels_first")


@pytest.mark.any_backend
def test_kernel_size_is_checked() -> None:
    message = (
        "EfficientChannelAttention 'e': `kernel_size` must be an odd number, but received 4 (int). "
        "Pass 5, or None to derive it from the number of channels."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        EfficientChannelAttention(4, name="e")
