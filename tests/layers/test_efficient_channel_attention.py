"""Efficient channel attention: the formula in NumPy, and the kernel size by the number of channels."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest

from contract import assert_close, assert_layer_contract, to_numpy
from keras_residual.layers.efficient_channel_attention import EfficientChannelAttention, adaptive_kernel_size


def test_contract() -> None:
    def make() -> keras.Layer:
        return EfficientChannelAttention(5, data_format="channels_last")

    assert_layer_contract(make, (2, 6, 8), output_shape=(2, 6, 8))


def test_contract_with_channels_first() -> None:
    def make() -> keras.Layer:
        return EfficientChannelAttention(data_format="channels_first")

    assert_layer_contract(make, (2, 8, 3, 5), output_shape=(2, 8, 3, 5), masks=False)


@pytest.mark.parametrize("kernel_size", [1, 3, 9])
@pytest.mark.parametrize("shape", [(2, 6, 7), (2, 5, 4, 7), (2, 3, 2, 4, 7)])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_formula(shape, data_format, kernel_size) -> None:
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


def test_steps_of_padding_do_not_count() -> None:
    layer = EfficientChannelAttention(data_format="channels_last")
    x = np.random.default_rng(0).normal(size=(1, 6, 8)).astype("float32")
    short = to_numpy(layer(x[:, :4]))
    x[:, 4:] = 0
    assert_close(to_numpy(layer(keras.layers.Masking()(x)))[:, :4], short)
    assert np.abs(to_numpy(layer(x))[:, :4] - short).max() > 1e-3


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_unknown_sizes(data_format) -> None:
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
def test_arguments_come_back() -> None:
    layer = EfficientChannelAttention(5, data_format="channels_first")
    copy = EfficientChannelAttention.from_config(layer.get_config())
    assert (copy.kernel_size, copy.data_format) == (5, "channels_first")


@pytest.mark.any_backend
def test_kernel_size_is_checked() -> None:
    message = (
        "EfficientChannelAttention 'e': `kernel_size` must be an odd number, but received 4 (int). "
        "Take 5, or None for a size by the number of channels."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        EfficientChannelAttention(4, name="e")
