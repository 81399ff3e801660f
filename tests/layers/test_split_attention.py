"""Selective kernels and split attention: their formulas by NumPy, their weights and their arguments."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest

from contract import assert_close, assert_layer_contract, to_numpy
from keras_residual.layers.split_attention import SelectiveKernel2D, SplitAttention2D
from keras_residual.residual.scales import Scale
from map_formulas import assert_channels_first_agrees, conv, norm, random_weights, relu, softmax

RNG = np.random.default_rng(8)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype("float32")


def selective_twin(
    x: np.ndarray,
    w: dict[str, np.ndarray],
    *,
    kernel_sizes: tuple[int, ...] = (3, 5),
    strides: int = 1,
    dilation_rate: int = 1,
    groups: int = 1,
    split_input: bool = True,
    keep_3x3: bool = True,
    training: bool = False,
    factor: float = 1.0,
) -> np.ndarray:
    """The layer; `factor` stands for what the drop layer does."""
    paths = len(kernel_sizes)
    parts = np.split(x, paths, axis=-1) if split_input else [x] * paths
    maps = []
    for path, (part, size) in enumerate(zip(parts, kernel_sizes, strict=True)):
        kernel = w[f"path{path}_conv/kernel"]
        assert len(kernel) == (3 if keep_3x3 else size)
        # A window of 3 taps is as wide as one of 5 where they lie 2 apart, and of 7 where 3.
        apart = {3: 1, 5: 2, 7: 3}[size] if keep_3x3 else 1
        y = conv(part, w, f"path{path}_conv", strides=strides, dilation=apart * dilation_rate, groups=groups)
        maps.append(relu(factor * norm(y, w, f"path{path}_norm", training=training)))
    maps = np.stack(maps)
    means = maps.sum(axis=0).mean(axis=(1, 2), keepdims=True)
    hidden = relu(norm(conv(means, w, "reduce"), w, "reduce_norm", training=training))
    weights = np.stack(np.split(conv(hidden, w, "select"), paths, axis=-1))
    return (softmax(weights, axis=0) * maps).sum(axis=0)


SELECTIVE_CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "strided": {"strides": 2},
    "dilated": {"dilation_rate": 2},
    "of the whole input, in groups": {"split_input": False, "groups": 2},
    "in groups": {"groups": 3, "strides": 2},
    "three paths as wide as they say": {"kernel_sizes": (3, 5, 7), "keep_3x3": False},
    "three paths": {"kernel_sizes": (3, 5, 7), "strides": 2},
}


def test_contract_of_selective() -> None:
    assert_layer_contract(
        lambda: SelectiveKernel2D(6, strides=2),
        (2, 5, 5, 8),
        output_shape=(2, 3, 3, 6),
        masks=False,
        policies=["mixed_bfloat16"],
        tolerance=1e-4,
    )


@pytest.mark.parametrize(("size", "training"), [((6, 6), False), ((5, 7), False), ((6, 5), True)])
@pytest.mark.parametrize("case", SELECTIVE_CASES)
def test_equals_its_formula_of_selective(case: str, size: tuple[int, int], training: bool) -> None:
    layer = SelectiveKernel2D(6, **SELECTIVE_CASES[case])
    x = normal(4, *size, 12)
    layer.build(x.shape)
    w = random_weights(layer)
    assert_close(
        layer(x, training=training),
        selective_twin(x, w, training=training, **SELECTIVE_CASES[case]),
        1e-4 if training else 1e-5,
    )


def test_training_moves_the_statistics_of_each_norm() -> None:
    layer = SelectiveKernel2D(6)
    x = normal(4, 5, 5, 12)
    layer.build(x.shape)
    before = random_weights(layer)
    layer(x, training=True)
    after = {w.path.split("/", 1)[1]: to_numpy(w.value) for w in layer.weights}
    moved = {path for path in after if np.any(after[path] != before[path].astype("float32"))}
    names = ("path0_norm", "path1_norm", "reduce_norm")
    assert moved == {f"{name}/moving_{which}" for name in names for which in ("mean", "variance")}
    mean = conv(x[..., 6:], before, "path1_conv", dilation=2).mean(axis=(0, 1, 2))
    expected = 0.9 * before["path1_norm/moving_mean"] + 0.1 * mean
    assert_close(after["path1_norm/moving_mean"], expected.astype("float32"), 1e-5)


def test_a_strong_weight_selects_one_path() -> None:
    layer = SelectiveKernel2D(4, kernel_sizes=(3, 5))
    x = normal(2, 6, 6, 8)
    layer.build(x.shape)
    random_weights(layer)
    hidden = layer.reduce.filters
    select = np.zeros((1, 1, hidden, 8), "float32")
    select[..., 4:] = 1000.0  # what comes in is not negative, and not all 0
    layer.select.set_weights([select])
    w = {weight.path.split("/", 1)[1]: to_numpy(weight.value) for weight in layer.weights}
    second = relu(norm(conv(x[..., 4:], w, "path1_conv", dilation=2), w, "path1_norm"))
    assert_close(layer(x), second, 1e-5)


def test_channels_first_is_channels_last_transposed_of_selective() -> None:
    last, first = (
        SelectiveKernel2D(6, groups=2, strides=2, data_format=data_format)
        for data_format in ("channels_last", "channels_first")
    )
    assert_channels_first_agrees(last, first, normal(2, 6, 7, 8))


def test_sizes_may_be_unknown_of_selective() -> None:
    layer = SelectiveKernel2D(6, strides=2)
    inputs = keras.Input((None, None, 4))
    outputs = layer(inputs)
    assert outputs.shape == (None, None, None, 6)
    model = keras.Model(inputs, outputs)
    for size in (5, 8):
        x = normal(2, size, size, 4)
        assert_close(model.predict(x, verbose=0), layer(x), 1e-5)


def test_the_drop_layer_acts_before_the_activation_of_each_path() -> None:
    layer = SelectiveKernel2D(6, drop_block=Scale(-2.0))
    x = normal(2, 5, 5, 4)
    layer.build(x.shape)
    w = random_weights(layer)
    assert_close(layer(x), selective_twin(x, w, factor=-2.0), 1e-5)


def test_the_drop_layer_learns_of_training_of_selective() -> None:
    # At this rate little more than nothing is left.
    layer = SelectiveKernel2D(6, drop_block=keras.layers.Dropout(0.999, seed=1))
    x = normal(2, 5, 5, 4)
    assert np.mean(to_numpy(layer(x, training=True)) == 0) > 0.9
    assert np.mean(to_numpy(layer(x)) == 0) < 0.5


@pytest.mark.any_backend
def test_names_of_the_weights_of_selective() -> None:
    layer = SelectiveKernel2D(16, groups=2, name="conv2")
    layer.build((None, 8, 8, 8))
    names = ("path0_norm", "path1_norm", "reduce_norm")
    norms = [f"{name}/{each}" for name in names for each in ("gamma", "beta", "moving_mean", "moving_variance")]
    others = [f"{name}/kernel" for name in ("path0_conv", "path1_conv", "reduce", "select")]
    assert sorted(weight.path for weight in layer.weights) == sorted(f"conv2/{name}" for name in (*norms, *others))
    shapes = {weight.path: tuple(weight.shape) for weight in layer.weights}
    assert shapes["conv2/path1_conv/kernel"] == (3, 3, 2, 16)
    assert shapes["conv2/select/kernel"] == (1, 1, 8, 32)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("filters", "ratio", "divisor", "between"),
    [(64, 1 / 16, 8, 8), (64, 1 / 8, 16, 16), (512, 1 / 8, 16, 64), (128, 1 / 16, 32, 32), (184, 1 / 16, 8, 16)],
)
def test_channels_between_of_selective(filters: int, ratio: float, divisor: int, between: int) -> None:
    layer = SelectiveKernel2D(filters, ratio=ratio, divisor=divisor)
    layer.build((None, 4, 4, 8))
    assert layer.reduce_norm.gamma.shape == (between,)


@pytest.mark.any_backend
def test_arguments_come_back_of_selective() -> None:
    arguments = {"kernel_sizes": (3, 7, 5), "strides": 2, "dilation_rate": 3, "groups": 2, "ratio": 0.5, "divisor": 4}
    arguments |= {"split_input": False, "keep_3x3": False, "data_format": "channels_first"}
    layer = SelectiveKernel2D(6, **arguments, drop_block=keras.layers.Dropout(0.25))
    copy = SelectiveKernel2D.from_config(layer.get_config())
    assert {name: getattr(copy, name) for name in arguments} == arguments
    assert (copy.filters, copy.drop_block.rate) == (6, 0.25)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: SelectiveKernel2D(5, groups=2, name="s"),
            ValueError,
            "SelectiveKernel2D 's': `filters` must be a multiple of `groups`, which is 2, but received 5 (int).",
        ),
        (
            lambda: SelectiveKernel2D(4, kernel_sizes=3, name="s"),
            ValueError,
            "SelectiveKernel2D 's': `kernel_sizes` must be two widths or more, but received 3 (int).",
        ),
        (
            lambda: SelectiveKernel2D(4, kernel_sizes=(3, 4), name="s"),
            ValueError,
            "SelectiveKernel2D 's': `kernel_sizes` must be an odd number, but received 4 (int).",
        ),
        (
            lambda: SelectiveKernel2D(4, kernel_sizes=(1, 3), name="s"),
            ValueError,
            "SelectiveKernel2D 's': `kernel_sizes` must be a whole number of at least 3, but received 1 (int).",
        ),
        (
            lambda: SelectiveKernel2D(4, ratio=-1.0, name="s"),
            ValueError,
            "SelectiveKernel2D 's': `ratio` must be a number above 0, but received -1.0 (float).",
        ),
        (
            lambda: SelectiveKernel2D(4, split_input=1, name="s"),
            TypeError,
            "SelectiveKernel2D 's': `split_input` must be True or False, but received 1 (int).",
        ),
        (
            lambda: SelectiveKernel2D(4, drop_block="dropout", name="s"),
            TypeError,
            "SelectiveKernel2D 's': `drop_block` must be a Keras layer or None, but received 'dropout' (str).",
        ),
        (
            lambda: SelectiveKernel2D(4, groups=2, name="s").build((None, 8, 8, 6)),
            ValueError,
            "SelectiveKernel2D 's': `inputs` must be a tensor with a multiple of groups * paths, 4, as channels, but "
            "received (None, 8, 8, 6) (tuple). The shape is shown.",
        ),
        (
            lambda: SelectiveKernel2D(4, groups=2, split_input=False, name="s").build((None, 8, 8, 5)),
            ValueError,
            "SelectiveKernel2D 's': `inputs` must be a tensor with a multiple of groups, 2, as channels, but "
            "received (None, 8, 8, 5) (tuple). The shape is shown.",
        ),
    ],
)
def test_arguments_are_checked_of_selective(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        make()


def split_twin(
    x: np.ndarray,
    w: dict[str, np.ndarray],
    *,
    radix: int = 2,
    groups: int = 1,
    strides: int = 1,
    dilation_rate: int = 1,
    training: bool = False,
    epsilon: float = 1e-5,
    factor: float = 1.0,
) -> np.ndarray:
    """The layer, one cardinal group after another; `factor` stands for what the drop layer does."""
    maps = conv(x, w, "conv", strides=strides, dilation=dilation_rate, groups=groups * radix)
    maps = relu(factor * norm(maps, w, "norm0", training=training, epsilon=epsilon))
    splits = np.split(maps, radix, axis=-1)
    means = sum(splits).mean(axis=(1, 2), keepdims=True)
    hidden = norm(conv(means, w, "reduce", groups=groups), w, "norm1", training=training, epsilon=epsilon)
    logits = conv(relu(hidden), w, "expand", groups=groups)
    outputs = []
    for group, mine in enumerate(np.split(logits, groups, axis=-1)):
        weights = np.stack(np.split(mine, radix, axis=-1))
        weights = 1 / (1 + np.exp(-weights)) if radix == 1 else softmax(weights, axis=0)
        parts = [np.split(split, groups, axis=-1)[group] for split in splits]
        outputs.append(sum(weight * part for weight, part in zip(weights, parts, strict=True)))
    return np.concatenate(outputs, axis=-1)


SPLIT_CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "radix 1": {"radix": 1},
    "radix 3 in groups": {"radix": 3, "groups": 2},
    "strided": {"strides": 2, "groups": 2},
    "dilated": {"dilation_rate": 2},
}


def test_contract_of_split() -> None:
    # The norm behind it takes a bias back.
    assert_layer_contract(
        lambda: SplitAttention2D(6, strides=2),
        (2, 5, 5, 4),
        output_shape=(2, 3, 3, 6),
        zero_gradient_ok=["reduce/bias"],
        masks=False,
        policies=["mixed_bfloat16"],
        tolerance=1e-4,
    )


@pytest.mark.parametrize(("size", "training"), [((6, 6), False), ((5, 7), False), ((6, 5), True)])
@pytest.mark.parametrize("case", SPLIT_CASES)
def test_equals_its_formula_of_split(case: str, size: tuple[int, int], training: bool) -> None:
    layer = SplitAttention2D(6, **SPLIT_CASES[case])
    x = normal(4, *size, 12)
    layer.build(x.shape)
    w = random_weights(layer)
    assert_close(
        layer(x, training=training),
        split_twin(x, w, training=training, **SPLIT_CASES[case]),
        1e-4 if training else 1e-5,
    )


def test_training_moves_the_statistics_of_both_norms() -> None:
    layer = SplitAttention2D(6)
    x = normal(4, 5, 5, 12)
    layer.build(x.shape)
    before = random_weights(layer)
    layer(x, training=True)
    after = {w.path.split("/", 1)[1]: to_numpy(w.value) for w in layer.weights}
    moved = {path for path in after if np.any(after[path] != before[path].astype("float32"))}
    assert moved == {f"{name}/moving_{which}" for name in ("norm0", "norm1") for which in ("mean", "variance")}
    mean = conv(x, before, "conv", groups=2).mean(axis=(0, 1, 2))
    expected = 0.9 * before["norm0/moving_mean"] + 0.1 * mean
    assert_close(after["norm0/moving_mean"], expected.astype("float32"), 1e-5)


def test_equal_splits_are_what_comes_out() -> None:
    layer = SplitAttention2D(6, radix=2)
    x = normal(2, 5, 5, 12)
    layer.build(x.shape)
    w = random_weights(layer)
    kernel = np.concatenate([w["conv/kernel"][..., :6]] * 2, axis=-1)
    layer.conv.set_weights([kernel])
    # Of both halves of the input the same convolution, and of its outputs the same norm.
    layer.norm0.set_weights([np.concatenate([weight[:6]] * 2) for weight in layer.norm0.get_weights()])
    x[..., 6:] = x[..., :6]
    w = {weight.path.split("/", 1)[1]: to_numpy(weight.value) for weight in layer.weights}
    # Weights that sum to 1 leave it as it is, whatever they are.
    assert_close(layer(x), relu(norm(conv(x, w, "conv", groups=2), w, "norm0"))[..., :6].astype("float32"), 1e-5)


def test_channels_first_is_channels_last_transposed_of_split() -> None:
    last, first = (
        SplitAttention2D(6, groups=2, strides=2, data_format=data_format)
        for data_format in ("channels_last", "channels_first")
    )
    assert_channels_first_agrees(last, first, normal(2, 6, 7, 8))


def test_sizes_may_be_unknown_of_split() -> None:
    layer = SplitAttention2D(6, strides=2)
    inputs = keras.Input((None, None, 4))
    outputs = layer(inputs)
    assert outputs.shape == (None, None, None, 6)
    model = keras.Model(inputs, outputs)
    for size in (5, 8):
        x = normal(2, size, size, 4)
        assert_close(model.predict(x, verbose=0), layer(x), 1e-5)


def test_the_drop_layer_acts_before_the_activation() -> None:
    layer = SplitAttention2D(6, drop_block=Scale(-2.0))
    x = normal(2, 5, 5, 4)
    layer.build(x.shape)
    w = random_weights(layer)
    assert_close(layer(x), split_twin(x, w, factor=-2.0), 1e-5)


def test_the_drop_layer_learns_of_training_of_split() -> None:
    # At this rate little more than nothing is left.
    layer = SplitAttention2D(6, drop_block=keras.layers.Dropout(0.999, seed=1))
    x = normal(2, 5, 5, 4)
    assert np.mean(to_numpy(layer(x, training=True)) == 0) > 0.9
    assert np.mean(to_numpy(layer(x)) == 0) < 0.5


@pytest.mark.any_backend
def test_names_of_the_weights_of_split() -> None:
    layer = SplitAttention2D(16, groups=2, radix=2, name="conv2")
    layer.build((None, 8, 8, 8))
    norms = [f"norm{i}/{name}" for i in (0, 1) for name in ("gamma", "beta", "moving_mean", "moving_variance")]
    others = ["conv/kernel", "reduce/kernel", "reduce/bias", "expand/kernel", "expand/bias"]
    assert sorted(weight.path for weight in layer.weights) == sorted(f"conv2/{name}" for name in (*norms, *others))
    shapes = {weight.path: tuple(weight.shape) for weight in layer.weights}
    assert shapes["conv2/conv/kernel"] == (3, 3, 2, 32)
    assert shapes["conv2/reduce/kernel"] == (1, 1, 8, 32)
    assert shapes["conv2/expand/kernel"] == (1, 1, 16, 32)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("channels", "radix", "ratio", "divisor", "between"),
    [(64, 2, 0.25, 8, 32), (128, 2, 0.25, 8, 64), (256, 1, 0.25, 8, 64), (84, 2, 0.25, 8, 40), (90, 2, 0.25, 16, 48)],
)
def test_channels_between_of_split(channels: int, radix: int, ratio: float, divisor: int, between: int) -> None:
    layer = SplitAttention2D(8, radix=radix, ratio=ratio, divisor=divisor)
    layer.build((None, 4, 4, channels))
    assert layer.norm1.gamma.shape == (between,)


def test_other_norms() -> None:
    named = SplitAttention2D(6, norm="group_norm")
    copied = SplitAttention2D(6, norm=keras.layers.BatchNormalization(epsilon=0.1))
    x = normal(3, 5, 5, 4)
    named.build(x.shape)
    copied.build(x.shape)
    assert [(type(norm), norm.groups) for norm in (named.norm0, named.norm1)] == [
        (keras.layers.GroupNormalization, 4),
        (keras.layers.GroupNormalization, 32),
    ]
    w = random_weights(copied)
    assert_close(copied(x), split_twin(x, w, epsilon=0.1), 1e-5)


@pytest.mark.any_backend
def test_arguments_come_back_of_split() -> None:
    arguments = {"kernel_size": 5, "strides": 2, "dilation_rate": 3, "groups": 2, "radix": 3, "ratio": 0.5}
    arguments |= {"divisor": 4, "data_format": "channels_first"}
    norm, drop = keras.layers.BatchNormalization(epsilon=0.1), keras.layers.Dropout(0.25)
    layer = SplitAttention2D(6, **arguments, norm=norm, drop_block=drop)
    copy = SplitAttention2D.from_config(layer.get_config())
    assert {name: getattr(copy, name) for name in arguments} == arguments
    assert (copy.filters, copy.norm.epsilon, copy.drop_block.rate) == (6, 0.1, 0.25)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: SplitAttention2D(5, groups=2, name="s"),
            ValueError,
            "SplitAttention2D 's': `filters` must be a multiple of `groups`, which is 2, but received 5 (int).",
        ),
        (
            lambda: SplitAttention2D(4, 2, name="s"),
            ValueError,
            "SplitAttention2D 's': `kernel_size` must be an odd number, but received 2 (int).",
        ),
        (
            lambda: SplitAttention2D(4, radix=0, name="s"),
            ValueError,
            "SplitAttention2D 's': `radix` must be a whole number of at least 1, but received 0 (int).",
        ),
        (
            lambda: SplitAttention2D(4, ratio=0, name="s"),
            ValueError,
            "SplitAttention2D 's': `ratio` must be a number above 0, but received 0 (int).",
        ),
        (
            lambda: SplitAttention2D(4, norm="batchnorm", name="s"),
            ValueError,
            "SplitAttention2D 's': unknown name for `norm`: 'batchnorm'. Did you mean 'batch_norm'? "
            "Known: batch_norm, layer_norm, group_norm, rms_norm.",
        ),
        (
            lambda: SplitAttention2D(4, norm=1, name="s"),
            TypeError,
            "SplitAttention2D 's': `norm` must be None, a Keras layer or one of batch_norm, layer_norm, group_norm, "
            "rms_norm, but received 1 (int).",
        ),
        (
            lambda: SplitAttention2D(4, drop_block=0.1, name="s"),
            TypeError,
            "SplitAttention2D 's': `drop_block` must be a Keras layer or None, but received 0.1 (float).",
        ),
        (
            lambda: SplitAttention2D(4, data_format="channel_last", name="s"),
            ValueError,
            "SplitAttention2D 's': unknown name for `data_format`: 'channel_last'. Did you mean 'channels_last'? "
            "Known: channels_last, channels_first.",
        ),
        (
            lambda: SplitAttention2D(4, name="s").build((None, 8, 8, 3)),
            ValueError,
            "SplitAttention2D 's': `inputs` must be a tensor with a multiple of groups * radix, 2, as channels, but "
            "received (None, 8, 8, 3) (tuple). The shape is shown.",
        ),
        (
            lambda: SplitAttention2D(6, groups=3, name="s").build((None, 8, 8, 6)),
            ValueError,
            "SplitAttention2D 's': `divisor` must be a number by which the 32 channels between `reduce` and `expand` "
            "become a multiple of `groups`, which is 3, but received 8 (int).",
        ),
    ],
)
def test_arguments_are_checked_of_split(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        make()
