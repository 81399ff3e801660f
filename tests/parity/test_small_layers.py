"""The small layers against timm's, with the same weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_residual.layers.channel_attention import EfficientChannelAttention, SqueezeExcite
from keras_residual.layers.drop_block import DropBlock2D
from keras_residual.layers.norms import EvoNormS0, FilterResponseNorm
from keras_residual.layers.pooling import BlurPool2D
from keras_residual.layers.weight_standardization import WSConv2D
from parity.timm_peer import array, assert_agrees, pictures, randomized, timm, torch

# The layers' own tests compare them with formulas, in each run.


MAPS = pytest.mark.parametrize(
    ("data_format", "size"),
    [
        ("channels_last", (8, 8)),
        ("channels_last", (7, 9)),
        ("channels_first", (7, 9)),
        ("channels_first", (1, 1)),
    ],
)


def built(layer: keras.Layer, x: np.ndarray) -> keras.Layer:
    last = getattr(layer, "data_format", "channels_last") == "channels_last"
    layer.build(np.moveaxis(x, 1, -1).shape if last else x.shape)
    return layer


@MAPS
@pytest.mark.parametrize(
    ("channels", "ours", "theirs"),
    [
        (64, {}, {}),
        (200, {}, {}),
        (48, {"ratio": 0.25}, {"rd_ratio": 0.25}),
        (40, {"gate": "hard_sigmoid", "divisor": 4}, {"gate_layer": "hard_sigmoid", "rd_divisor": 4}),
    ],
)
def test_squeeze_excite(channels, ours, theirs, size, data_format) -> None:
    module = randomized(timm.layers.SEModule(channels, **theirs))
    x = pictures(2, channels, *size)
    assert_agrees(with_dense_weights(SqueezeExcite(data_format=data_format, **ours), module, x), module, x)


@pytest.mark.parametrize("channels", [64, 256])
def test_squeeze_excite_of_the_first_senet(channels) -> None:
    module = randomized(timm.models.senet.SEModule(channels, 16))
    x = pictures(2, channels, 7, 6)
    assert_agrees(with_dense_weights(SqueezeExcite(divisor=1), module, x), module, x)


def with_dense_weights(layer, module, x):
    built(layer, x)
    layer.reduce.set_weights([array(module.fc1.weight)[:, :, 0, 0].T, array(module.fc1.bias)])
    layer.expand.set_weights([array(module.fc2.weight)[:, :, 0, 0].T, array(module.fc2.bias)])
    return layer


@MAPS
@pytest.mark.parametrize("channels", [5, 64, 256, 2048])
def test_efficient_channel_attention(channels, size, data_format) -> None:
    module = randomized(timm.layers.EcaModule(channels))
    x = pictures(2, channels, *size)
    layer = built(EfficientChannelAttention(data_format=data_format), x)
    layer.conv.set_weights([array(module.conv.weight).transpose(2, 1, 0)])
    assert_agrees(layer, module, x)


@pytest.mark.parametrize(
    ("data_format", "size"), [("channels_last", (8, 8)), ("channels_last", (7, 10)), ("channels_first", (6, 11))]
)
@pytest.mark.parametrize(
    ("strides", "pool_size", "pad"),
    [
        (2, 3, "reflect"),
        (2, 3, "constant"),
        (1, 3, "reflect"),
        (2, 2, "reflect"),
        (2, 4, "constant"),
        (3, 4, "reflect"),
        (2, 5, "reflect"),
        (3, 5, "constant"),
    ],
)
def test_blur_pool(strides, pool_size, pad, size, data_format) -> None:
    module = timm.layers.BlurPool2d(3, filt_size=pool_size, stride=strides, pad_mode=pad)
    layer = BlurPool2D(strides, pool_size=pool_size, pad=pad, data_format=data_format)
    assert_agrees(layer, module, pictures(2, 3, *size))


@pytest.mark.parametrize(
    ("data_format", "size"), [("channels_last", (14, 14)), ("channels_first", (7, 10)), ("channels_last", (4, 3))]
)
@pytest.mark.parametrize(("block_size", "gamma_scale"), [(1, 1.0), (3, 0.5), (4, 1.0), (5, 0.25), (7, 0.5)])
def test_drop_block_of_the_same_draws(block_size, gamma_scale, size, data_format, monkeypatch) -> None:
    draws = np.random.default_rng(block_size).random((6, *size)).astype("float32")
    monkeypatch.setattr(keras.random, "uniform", lambda *args, **kwargs: keras.ops.convert_to_tensor(draws))
    monkeypatch.setattr(torch.Tensor, "bernoulli_", lambda self, p: self.copy_(torch.tensor(draws)[:, None] < p))
    module = timm.layers.DropBlock2d(0.15, block_size, gamma_scale)
    layer = DropBlock2D(0.15, block_size, gamma_scale=gamma_scale, data_format=data_format)
    assert_agrees(layer, module, pictures(6, 3, *size), training=True)


@MAPS
@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (12, 3), (5, 1), (6, 6)])
@pytest.mark.parametrize("activation", [True, False])
def test_evonorm(activation, channels, groups, size, data_format) -> None:
    module = randomized(timm.layers.EvoNorm2dS0(channels, groups=groups, apply_act=activation))
    x = pictures(3, channels, *size)
    layer = built(EvoNormS0(groups, apply_activation=activation, data_format=data_format), x)
    layer.gamma.assign(array(module.weight))
    layer.beta.assign(array(module.bias))
    if activation:
        layer.v.assign(array(module.v))
    assert_agrees(layer, module, x)


@MAPS
@pytest.mark.parametrize("threshold", [True, False])
@pytest.mark.parametrize("epsilon", [1e-5, 0.1])
def test_filter_response_norm(epsilon, threshold, size, data_format) -> None:
    module = randomized(timm.layers.FilterResponseNormTlu2d(10, apply_act=threshold, eps=epsilon))
    x = pictures(3, 10, *size)
    layer = built(FilterResponseNorm(epsilon=epsilon, apply_threshold=threshold, data_format=data_format), x)
    layer.gamma.assign(array(module.weight))
    layer.beta.assign(array(module.bias))
    if threshold:
        layer.tau.assign(array(module.tau))
    assert_agrees(layer, module, x)


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
@pytest.mark.parametrize("epsilon", [1e-6, 1e-8])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_weight_standardised_convolution(groups, strides, epsilon, size) -> None:
    module = randomized(timm.layers.StdConv2d(6, 4, 3, stride=strides, groups=groups, bias=True, eps=epsilon))
    x = pictures(2, 6, *size)
    convolution = WSConv2D(4, 3, epsilon=epsilon, strides=strides, groups=groups, data_format="channels_last")
    convolution.build((None, None, None, 6))
    convolution.set_weights([array(module.weight).transpose(2, 3, 1, 0), array(module.bias)])
    assert_agrees(keras.Sequential([keras.layers.ZeroPadding2D(1), convolution]), module, x)
