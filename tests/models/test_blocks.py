"""The published blocks: what they compute, what they count, and what they are at the start."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import keras_residual as kr
from contract import assert_close, assert_layer_contract, perturb, to_numpy

RNG = np.random.default_rng(8)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype("float32")


CASES: dict[str, Any] = {
    "basic": (lambda: kr.basic_block(3), (2, 5, 5, 3)),
    "basic, strided": (lambda: kr.basic_block(4, 2), (2, 5, 5, 3)),
    "bottleneck": (lambda: kr.bottleneck_block(2, 2, expansion=3), (2, 5, 5, 3)),
    "preact_basic": (lambda: kr.preact_basic_block(3), (2, 5, 5, 3)),
    "preact_basic, projected": (lambda: kr.preact_basic_block(4, 2, project=True), (2, 5, 5, 3)),
    "preact_bottleneck": (lambda: kr.preact_bottleneck_block(2, expansion=2, project=True), (2, 5, 5, 3)),
    "series": (lambda: kr.series_block(4), (2, 9, 3)),
    "tabular": (lambda: kr.tabular_block(6, 8, hidden_dropout=0.3, residual_dropout=0.2), (8, 6)),
    "1-D": (lambda: kr.basic_block(4, 2, rank=1), (2, 7, 3)),
    "3-D": (lambda: kr.basic_block(4, 2, rank=3), (2, 4, 4, 4, 3)),
}


@pytest.mark.every
@pytest.mark.parametrize("case", CASES)
def test_contract(case: str) -> None:
    make, shape = CASES[case]
    # A last norm that starts at zero leaves the branch without a gradient at the start: that is its purpose.
    zero_ok = ("conv", "norm1", "norm2")
    assert_layer_contract(make, shape, masks=False, zero_gradient_ok=zero_ok)


def test_basic_block_is_its_formula() -> None:
    block = kr.basic_block(4, strides=2)
    x = normal(2, 6, 6, 3)
    block(x)
    perturb(block)
    layers = {layer.name: layer for layer in block.branch}
    h = ops.pad(ops.convert_to_tensor(x), [(0, 0), (1, 1), (1, 1), (0, 0)])
    h = ops.relu(layers["norm1"](ops.conv(h, layers["conv1"].kernel, strides=2, padding="valid")))
    h = layers["norm2"](ops.conv(h, layers["conv2"].kernel, padding="same"))
    shortcut = block.shortcut_layer
    s = shortcut.projection_norm(ops.conv(ops.convert_to_tensor(x), shortcut.projection.kernel, strides=2))
    assert_close(block(x), ops.relu(h + s))


def test_a_strided_convolution_is_padded_alike_on_both_sides() -> None:
    # As the published networks are: turning a picture over turns the result over. Keras's "same" does not do that.
    block = kr.basic_block(3, strides=2, shortcut="zero_pad")
    x = normal(1, 7, 7, 3)
    block(x)
    perturb(block)
    conv1 = next(layer for layer in block.branch if layer.name == "conv1")
    conv2 = next(layer for layer in block.branch if layer.name == "conv2")
    for conv in (conv1, conv2):
        kernel = np.asarray(to_numpy(conv.kernel))
        conv.kernel.assign((kernel + kernel[::-1]) / 2)
    assert_close(block(x[:, ::-1]), to_numpy(block(x))[:, ::-1])


def test_the_stride_of_a_bottleneck_is_that_of_the_wide_convolution() -> None:
    convolutions = [layer for layer in kr.bottleneck_block(2, 2).branch if isinstance(layer, keras.layers.Conv2D)]
    strides = {layer.name: layer.strides for layer in convolutions}
    assert strides == {"conv1": (1, 1), "conv2": (2, 2), "conv3": (1, 1)}


def test_zero_init_last_starts_as_relu_of_the_input() -> None:
    x = normal(2, 5, 5, 3)
    np.testing.assert_array_equal(to_numpy(kr.basic_block(3)(x)), np.maximum(x, 0))
    assert np.any(to_numpy(kr.basic_block(3, zero_init_last=False)(x)) != np.maximum(x, 0))


def test_a_pre_activation_stack_without_weights_is_the_identity() -> None:
    x = y = normal(2, 5, 5, 3)
    for _ in range(3):
        block = kr.preact_basic_block(3)
        block.build(x.shape)
        block.branch[-1].set_weights([0 * block.branch[-1].get_weights()[0]])
        y = block(y)
    np.testing.assert_array_equal(to_numpy(y), x)


def test_a_projecting_pre_activation_block_projects_the_activated_input() -> None:
    block = kr.preact_basic_block(4, strides=2, project=True)
    x = normal(2, 6, 6, 3)
    block(x)
    perturb(block)
    block.branch[-1].set_weights([0 * block.branch[-1].get_weights()[0]])
    activated = ops.relu(block.preactivation[0](x))
    assert_close(block(x), ops.conv(activated, block.shortcut_layer.projection.kernel, strides=2))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("make", "shape", "expected"),
    [
        (lambda: kr.basic_block(64), (None, 8, 8, 64), 2 * 9 * 64 * 64 + 2 * 2 * 64),
        (lambda: kr.bottleneck_block(64), (None, 8, 8, 256), 2 * 256 * 64 + 9 * 64 * 64 + 2 * (64 + 64 + 256)),
        (lambda: kr.tabular_block(8, 16), (None, 8), 2 * 8 + (8 * 16 + 16) + (16 * 8 + 8)),
        (
            lambda: kr.series_block(64),
            (None, 50, 1),
            8 * 64 + 5 * 64 * 64 + 3 * 64 * 64 + 3 * 128 + (64 + 128),
        ),
    ],
)
def test_trainable_parameters(make: Any, shape: Any, expected: int) -> None:
    block = make()
    block.build(shape)
    assert sum(int(np.prod(v.shape)) for v in block.trainable_variables) == expected


@pytest.mark.any_backend
def test_mistakes_are_named() -> None:
    for make in (kr.basic_block, kr.bottleneck_block, kr.preact_basic_block, kr.preact_bottleneck_block):
        owner = make.__name__
        with pytest.raises(
            ValueError, match=rf"^{owner}: `rank` must be 1, 2 or 3 spatial dimensions, but received 4 \(int\).$"
        ):
            make(8, rank=4)
        with pytest.raises(
            ValueError, match=rf"^{owner}: `filters` must be a whole number of at least 1, but received 0"
        ):
            make(0)
    for make in (kr.preact_basic_block, kr.preact_bottleneck_block):
        told = rf"^{make.__name__}: `project` must be True where `strides` is more than 1, but received False"
        with pytest.raises(ValueError, match=told):
            make(8, strides=2)


@pytest.mark.any_backend
def test_a_bottleneck_of_v2_has_its_outer_channels_over_the_expansion_inside() -> None:
    config = kr.ResNetV2Config(depths=(2,), filters=(12,), expansion=3, stem_filters=8)
    model = kr.ResNetV2(config, input_shape=(16, 16, 3), num_classes=2, execution="unrolled")
    first = model.get_layer("stage1_block1")
    kernels = [tuple(layer.kernel.shape) for layer in first.branch if hasattr(layer, "kernel")]
    assert kernels == [(1, 1, 8, 4), (3, 3, 4, 4), (1, 1, 4, 12)]
    with pytest.raises(ValueError, match=r"^ResNetV2Config: `expansion` must be a whole number of at least 1"):
        kr.ResNetV2Config(depths=(1,), filters=(8,), expansion=0)


def test_blocks_follow_keras_image_data_format() -> None:
    keras.config.set_image_data_format("channels_first")
    block = kr.basic_block(4, strides=2)
    assert block.compute_output_shape((None, 3, 6, 6)) == (None, 4, 3, 3)
