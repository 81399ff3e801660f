"""Blurred pooling: a depthwise convolution of the padded picture in NumPy, sizes, and what a blur must keep."""

from __future__ import annotations

import math
import re

import keras
import numpy as np
import pytest
from keras import ops

from contract import assert_close, assert_layer_contract, to_numpy
from keras_residual.layers.pooling import BlurPool2D

SHAPES = {"channels_last": (2, 7, 6, 3), "channels_first": (2, 3, 7, 6)}


@pytest.mark.parametrize("data_format", SHAPES)
@pytest.mark.parametrize(("pool_size", "pad", "width"), [(3, "reflect", 3), (4, "constant", 4)])
def test_contract(data_format, pool_size, pad, width) -> None:
    shape = (2, 4, width, 3) if data_format == "channels_last" else (2, 3, 4, width)

    def make() -> keras.Layer:
        return BlurPool2D(2, pool_size=pool_size, pad=pad, data_format=data_format)

    assert_layer_contract(make, SHAPES[data_format], output_shape=shape, masks=False)


def reference(x: np.ndarray, strides: int, size: int, pad: str) -> np.ndarray:
    """Sums over the windows of a padded picture, channels last."""
    width = (strides - 1 + size - 1) // 2
    x = np.pad(x.astype("float64"), [(0, 0), (width, width), (width, width), (0, 0)], mode=pad)
    line = np.array([math.comb(size - 1, i) for i in range(size)]) / 2 ** (size - 1)
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::strides, ::strides]
    return np.einsum("bhwcij,i,j->bhwc", windows, line, line).astype("float32")


@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize("pool_size", [2, 3, 5])
@pytest.mark.parametrize("pad", ["reflect", "constant"])
@pytest.mark.parametrize(("data_format", "size"), [("channels_last", (6, 9)), ("channels_first", (4, 5))])
def test_formula(size, pad, pool_size, strides, data_format) -> None:
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
    layer = BlurPool2D(strides, pool_size=pool_size, pad=pad, data_format=data_format)
    y = to_numpy(layer(x if data_format == "channels_last" else np.moveaxis(x, -1, 1)))
    y = y if data_format == "channels_last" else np.moveaxis(y, 1, -1)
    assert_close(y, reference(x, strides, pool_size, pad), 1e-6)


def test_equals_a_depthwise_convolution() -> None:
    x = np.random.default_rng(0).normal(size=(2, 13, 12, 5)).astype("float32")
    line = np.array([1, 2, 1]) / 4
    kernel = np.tile(np.outer(line, line)[:, :, None, None], (1, 1, 5, 1)).astype("float32")
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="reflect")
    expected = ops.depthwise_conv(padded, kernel, strides=2, padding="valid", data_format="channels_last")
    assert_close(BlurPool2D(data_format="channels_last")(x), expected, 1e-6)


@pytest.mark.parametrize("strides", [1, 2])
def test_a_picture_of_one_colour_stays_as_it_is(strides) -> None:
    x = np.full((1, 5, 4, 2), 3.0, "float32")
    y = BlurPool2D(strides, data_format="channels_last")(x)
    assert_close(y, x[:, ::strides, ::strides], 0)


@pytest.mark.parametrize("data_format", SHAPES)
@pytest.mark.parametrize("pad", ["reflect", "constant"])
def test_unknown_sizes(data_format, pad) -> None:
    shape = (None, None, 3) if data_format == "channels_last" else (3, None, None)
    layer = BlurPool2D(pool_size=5, pad=pad, data_format=data_format)
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    assert model.output_shape == (None, *shape)
    x = np.random.default_rng(0).normal(size=SHAPES[data_format]).astype("float32")
    assert_close(model.predict(x, verbose=0), layer(x), 1e-6)


def test_an_empty_batch() -> None:
    assert BlurPool2D(data_format="channels_last")(np.zeros((0, 4, 4, 2), "float32")).shape == (0, 2, 2, 2)


@pytest.mark.any_backend
def test_no_weights_and_arguments_come_back() -> None:
    layer = BlurPool2D(3, pool_size=5, pad="constant", data_format="channels_first")
    layer.build((None, 3, 8, 8))
    assert layer.weights == []
    copy = BlurPool2D.from_config(layer.get_config())
    assert (copy.strides, copy.pool_size, copy.pad, copy.data_format) == (3, 5, "constant", "channels_first")


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: BlurPool2D(0, name="b"),
            "`strides` must be a whole number of at least 1, but received 0 (int).",
        ),
        (
            lambda: BlurPool2D(pool_size=1, name="b"),
            "`pool_size` must be a whole number of at least 2, but received 1 (int).",
        ),
        (
            lambda: BlurPool2D(pad="reflex", name="b"),
            "unknown name for `pad`: 'reflex'. Did you mean 'reflect'? Known: reflect, constant.",
        ),
        (
            lambda: BlurPool2D(name="b").compute_output_shape((1, 4, 4)),
            "`inputs` must be a tensor of rank 4, but received (1, 4, 4) (tuple). The shape is shown.",
        ),
        (
            lambda: BlurPool2D(name="b", data_format="channels_last").compute_output_shape((None, 8, 1, 3)),
            "`inputs` must be a tensor of sizes of at least 2, but received (None, 8, 1, 3) (tuple). "
            "The shape is shown. pad='constant' takes smaller ones.",
        ),
        (
            lambda: BlurPool2D(1, pool_size=4, pad="constant", name="b").compute_output_shape((None, 1, 1, 1)),
            "`inputs` must be a tensor of sizes of at least 2, but received (None, 1, 1, 1) (tuple). "
            "The shape is shown.",
        ),
    ],
)
def test_arguments_are_checked(make, message) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(f"BlurPool2D 'b': {message}") + "$"):
        make()
