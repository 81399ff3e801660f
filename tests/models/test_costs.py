"""Costs against formulas written out by hand, and against what others have published of the same networks."""

from __future__ import annotations

import re
from typing import Any

import keras
import pytest
from keras import layers

import keras_residual as kr
from keras_residual.models.costs import Costs, blueprint, costs

# Multiply-adds in 10^9 and activations in 10^6 at 224 pixels, from the benchmark results of timm. It counts two
# operations for each value that a batch norm gives out as well, some 0.6 % in all.
PUBLISHED = {
    "resnet18": (1.82, 2.48),
    "resnet50": (4.11, 11.11),
    "resnet101": (7.83, 16.23),
    "resnext50_32x4d": (4.26, 14.4),
    "wide_resnet50_2": (11.43, 14.4),
    "seresnet50": (4.11, 11.13),
    "resnet50d": (4.35, 11.92),
    "resnetaa50": (5.15, 11.64),
    "resnetrs50": (4.48, 12.14),
    "ecaresnet50d": (4.35, 11.93),
    "ecaresnet50d_pruned": (2.53, 6.43),
    "ecaresnetlight": (4.11, 8.42),
    "resnetv2_50": (4.11, 11.11),
    "resnetv2_50d_evos": (4.33, 11.92),
    "resnest14d": (2.76, 7.33),
    "resnest50d": (5.4, 14.36),
    "resnest50d_4s2x40d": (4.4, 17.94),
    "res2net50_26w_4s": (4.28, 12.61),
    "res2next50": (4.2, 13.71),
    "skresnet18": (1.82, 3.24),
    "skresnext50_32x4d": (4.5, 17.18),
    "legacy_senet154": (20.77, 38.69),
    "legacy_seresnext26_32x4d": (2.49, 9.39),
}
# The same in 10^9 without norms, as torchvision gives it with its weights.
TORCHVISION = {
    "resnet18": 1.814,
    "resnet34": 3.664,
    "resnet50": 4.089,
    "resnet101": 7.801,
    "resnet152": 11.514,
    "resnext50_32x4d": 4.23,
    "resnext101_32x8d": 16.414,
    "resnext101_64x4d": 15.46,
    "wide_resnet50_2": 11.398,
    "wide_resnet101_2": 22.753,
}


@pytest.mark.any_backend
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_costs_of_timm(name: str) -> None:
    macs, activations = PUBLISHED[name]
    found = blueprint(name).costs
    assert found.activations / 1e6 == pytest.approx(activations, abs=0.006)
    assert found.macs / 1e9 == pytest.approx(macs, rel=0.01, abs=0.005)
    assert found.flops == 2 * found.macs


@pytest.mark.any_backend
@pytest.mark.parametrize("name", TORCHVISION)
def test_published_costs_of_torchvision(name: str) -> None:
    assert blueprint(name).costs.macs / 1e9 == pytest.approx(TORCHVISION[name], abs=0.0006)


# Input shape, layer, multiply-adds and activations, written out.
LAYERS: dict[str, tuple[tuple[int, ...], Any, int, int]] = {
    "convolution": ((9, 8, 4), lambda: layers.Conv2D(6, (3, 2), strides=2), 4 * 4 * 3 * 2 * 4 * 6, 4 * 4 * 6),
    "groups": ((8, 8, 4), lambda: layers.Conv2D(6, 3, groups=2, padding="same"), 64 * 9 * 2 * 6, 64 * 6),
    "channels first": (
        (4, 9, 8),
        lambda: layers.Conv2D(6, 1, data_format="channels_first"),
        72 * 4 * 6,
        72 * 6,
    ),
    "series": ((10, 3), lambda: layers.Conv1D(5, 4, padding="causal"), 10 * 4 * 3 * 5, 10 * 5),
    "volume": ((4, 4, 4, 2), lambda: layers.Conv3D(3, 3, padding="same"), 64 * 27 * 2 * 3, 64 * 3),
    "depthwise": ((8, 8, 4), lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), 36 * 9 * 8, 36 * 8),
    "separable": (
        (8, 8, 4),
        lambda: layers.SeparableConv2D(5, 3, depth_multiplier=2),
        36 * (9 * 8 + 8 * 5),
        36 * (8 + 5),
    ),
    "transposed": ((4, 4, 3), lambda: layers.Conv2DTranspose(5, 2, strides=2), 16 * 4 * 3 * 5, 64 * 5),
    "dense": ((7,), lambda: layers.Dense(5), 35, 5),
    "dense on a sequence": ((6, 7), lambda: layers.Dense(5), 6 * 35, 6 * 5),
    "norm": ((4, 4, 3), lambda: layers.BatchNormalization(), 0, 0),
    "squeeze and excite": (
        (8, 8, 32),
        lambda: kr.layers.SqueezeExcite(1 / 4),
        2 * 32 * 8,
        32 + 8,
    ),
    "channel attention": ((8, 8, 32), lambda: kr.layers.EfficientChannelAttention(3), 32 * 3, 32),
    "standardized": ((8, 8, 4), lambda: kr.layers.WSConv2D(6, 3, padding="same"), 64 * 9 * 4 * 6, 64 * 6),
    # Two paths of half the channels each, 3×3 taps; 8 channels inside the attention.
    "selective kernel": (
        (8, 8, 16),
        lambda: kr.layers.SelectiveKernel2D(32, strides=2),
        2 * 16 * 9 * 8 * 32 + 32 * 8 + 8 * 64,
        2 * 16 * 32 + 8 + 64,
    ),
    "multi-scale": (
        (8, 8, 16),
        lambda: kr.layers.MultiScaleConv2D(4, scale=4, first=True, strides=2),
        3 * 16 * 9 * 4 * 4,
        3 * 16 * 4,
    ),
    # One convolution of twice the filters in two groups; 32 channels inside the attention.
    "split attention": (
        (8, 8, 16),
        lambda: kr.layers.SplitAttention2D(16),
        64 * 9 * 8 * 32 + 16 * 32 + 32 * 32,
        64 * 32 + 32 + 32,
    ),
    # The branch, the projection of what was not normed, and Dense behind both.
    "residual": (
        (8, 8, 4),
        lambda: kr.Residual(
            [layers.Conv2D(6, 3, strides=2, padding="same"), layers.ReLU()],
            norm="layer_norm",
            branch_scale="layer_scale",
            activation=layers.Dense(6),
        ),
        16 * 9 * 4 * 6 + 16 * 4 * 6 + 16 * 36,
        3 * 16 * 6,
    ),
    "average-pool shortcut": ((8, 8, 4), lambda: kr.AvgPoolShortcut(6, strides=2), 16 * 4 * 6, 16 * 6),
    "preactivation": (
        (8, 8, 4),
        lambda: kr.Residual(layers.Dense(4), preactivation=[layers.Conv2D(4, 3)]),
        36 * 9 * 16 + 36 * 16,
        2 * 36 * 4,
    ),
}


@pytest.mark.parametrize("case", LAYERS)
def test_layers_by_their_formulas(case: str) -> None:
    shape, make, macs, activations = LAYERS[case]
    inputs = keras.Input(shape)
    found = costs(keras.Model(inputs, make()(inputs)))
    assert (found.macs, found.activations) == (macs, activations)


@pytest.mark.parametrize("execution", ["unrolled", "scan"])
def test_a_stack_costs_what_its_blocks_cost(execution: str) -> None:
    inputs = keras.Input((6, 8))
    block = kr.Residual([layers.Dense(16), layers.Dense(8)], norm="batch_norm")
    model = keras.Model(inputs, kr.ResidualStack(block, 5, execution=execution)(inputs))
    dense = 8 * 16 + 16 + 16 * 8 + 8
    assert costs(model) == Costs(5 * (dense + 2 * 8), 5 * 2 * 8, 5 * 6 * 2 * 8 * 16, 5 * 6 * (16 + 8))


def test_blocks_that_differ_are_counted_one_by_one() -> None:
    inputs = keras.Input((8,))
    stack = kr.ResidualStack(lambda index: kr.Residual([layers.Dense(4 * (index + 1)), layers.Dense(8)]), 3)
    found = costs(keras.Model(inputs, stack(inputs)))
    assert (found.macs, found.activations) == (2 * 8 * (4 + 8 + 12), 4 + 8 + 12 + 3 * 8)


def test_frozen_weights_are_weights() -> None:
    model = kr.create_model("cifar_resnet20", input_shape=(32, 32, 3), num_classes=10)
    before = costs(model)
    kr.freeze(model, "stage2")
    assert costs(model) == before
    assert before.params == 269_722


def test_a_shared_layer_computes_at_each_place_and_has_its_weights_once() -> None:
    inputs = keras.Input((4,))
    shared = layers.Dense(4)
    found = costs(keras.Model(inputs, layers.Add()([shared(shared(inputs)), keras.ops.relu(inputs)])))
    assert found == Costs(20, 0, 32, 8)


def test_models_in_models_and_sequences() -> None:
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dropout(0.5), layers.Dense(2)])
    inputs = keras.Input((4,))
    assert costs(keras.Model(inputs, inner(inputs))) == costs(inner) == Costs(4 * 3 + 3 + 3 * 2 + 2, 0, 18, 5)


def test_open_sizes_are_closed_by_input_shape() -> None:
    open_ = kr.create_model("resnet18", input_shape=(None, None, 3), num_classes=1000)
    assert costs(open_, (224, 224, 3)) == blueprint("resnet18").costs
    smaller = kr.create_model("resnet18", input_shape=(96, 128, 3), num_classes=1000)
    assert costs(smaller, (224, 224, 3)) == blueprint("resnet18").costs
    message = (
        "costs: `input_shape` must be the known sizes of one input, but received (None, None, 3) (tuple). The model "
        "'resnet18' takes (None, None, 3)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        costs(open_)


def test_what_cannot_be_counted_is_refused() -> None:
    inputs = keras.Input((4, 8))
    model = keras.Model(inputs, layers.LSTM(3, name="memory")(inputs))
    message = (
        "costs: `model` must be made of convolutions, dense layers, norms and this library's own layers, but "
        "received \"LSTM 'memory'\" (str)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        costs(model)
    gru = keras.Model(inputs, kr.Residual(layers.Dense(8), merge="gru", name="gated")(inputs))
    with pytest.raises(ValueError, match=r"^costs: `model` must be made of .* received \"GRUMerge 'merge'\" \(str\)"):
        costs(gru)
    streams = kr.ResidualStack(kr.Residual(layers.Dense(8)), 2, topology="hyper_connections")
    with pytest.raises(ValueError, match=r"^costs: `model` must be made of stacks whose topology is 'single', "):
        costs(keras.Model(inputs, streams(inputs)))


@pytest.mark.any_backend
def test_what_is_no_model_of_one_input_is_refused() -> None:
    rule = r"^costs: `model` must be a functional model, or a sequential one that is built, but received "
    for wrong in (3, keras.Sequential([layers.Dense(2)])):
        with pytest.raises(TypeError, match=rule):
            costs(wrong)  # type: ignore[arg-type]
    one, other = keras.Input((4,)), keras.Input((4,))
    two = keras.Model([one, other], layers.Add()([one, other]), name="two")
    with pytest.raises(ValueError, match=r"^costs: `model` must be a built model of one input, .*'two' with 2"):
        costs(two)
