"""Convolutions with symmetric padding against sums over windows, at each stride and dilation."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest

from contract import assert_close, assert_layer_contract
from keras_residual.residual.symmetric_conv import SymmetricConv2D
from map_formulas import assert_channels_first_agrees, conv, random_weights

RNG = np.random.default_rng(2)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype("float32")


@pytest.mark.parametrize(("strides", "dilation"), [(2, 1), (2, 3)])
def test_contract(strides: int, dilation: int) -> None:
    size = -(-6 // strides)
    assert_layer_contract(
        lambda: SymmetricConv2D(3, 3, strides=strides, dilation_rate=dilation),
        (2, 6, 6, 4),
        output_shape=(2, size, size, 3),
        masks=False,
    )


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (2, 1)])
@pytest.mark.parametrize("width", [3, 5])
@pytest.mark.parametrize("dilation", [1, 2, 3, 4])
@pytest.mark.parametrize("strides", [1, 2, 4])
def test_it_is_a_sum_over_windows(strides: int, dilation: int, width: int, size: tuple[int, int]) -> None:
    x = normal(1, *size, 2)
    layer = SymmetricConv2D(2, width, strides=strides, dilation_rate=dilation)
    layer.build(x.shape)
    weights = {f"conv/{name}": value for name, value in random_weights(layer).items()}
    assert_close(layer(x), conv(x, weights, "conv", strides=strides, dilation=dilation), 1e-5)


def test_channels_first_is_channels_last_transposed() -> None:
    last, first = (
        SymmetricConv2D(6, 3, strides=2, dilation_rate=2, groups=2, data_format=data_format)
        for data_format in ("channels_last", "channels_first")
    )
    assert_channels_first_agrees(last, first, normal(2, 7, 6, 4))


def test_sizes_may_be_unknown() -> None:
    layer = SymmetricConv2D(3, 3, strides=2, dilation_rate=2)
    assert layer.compute_output_shape((None, None, 7, 4)) == (None, None, 4, 3)
    inputs = keras.Input((None, None, 4))
    model = keras.Model(inputs, layer(inputs))
    for size in (5, 8):
        x = normal(2, size, size, 4)
        assert_close(model.predict(x, verbose=0), layer(x), 1e-6)


@pytest.mark.any_backend
def test_arguments_come_back() -> None:
    layer = SymmetricConv2D(4, 5, strides=3, dilation_rate=2, groups=2, use_bias=False, name="conv")
    config = SymmetricConv2D.from_config(layer.get_config()).get_config()
    assert config == layer.get_config()
    assert (config["kernel_size"], config["strides"], config["dilation_rate"], config["groups"]) == (5, 3, 2, 2)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"kernel_size": 4},
            ValueError,
            "SymmetricConv2D 'c': `kernel_size` must be an odd number, but received 4 (int).",
        ),
        (
            {"kernel_size": 3, "strides": 0},
            ValueError,
            "SymmetricConv2D 'c': `strides` must be a whole number of at least 1, but received 0 (int).",
        ),
        (
            {"kernel_size": 3, "strides": (2, 2)},
            TypeError,
            "SymmetricConv2D 'c': `strides` must be a whole number of at least 1, but received (2, 2) (tuple).",
        ),
        (
            {"kernel_size": 3, "dilation_rate": (2, 1)},
            TypeError,
            "SymmetricConv2D 'c': `dilation_rate` must be a whole number of at least 1, but received (2, 1) (tuple).",
        ),
    ],
)
def test_arguments_are_checked(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        SymmetricConv2D(2, **arguments, name="c")
