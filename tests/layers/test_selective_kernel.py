"""Selective kernels against their formula in NumPy, and what is left of it where the weights are known."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest

from contract import assert_close, assert_layer_contract, to_numpy
from keras_residual.layers.selective_kernel import SelectiveKernel2D
from keras_residual.residual.scales import Scale
from map_formulas import assert_channels_first_agrees, conv, norm, random_weights, relu, softmax

RNG = np.random.default_rng(8)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype("float32")


def twin(
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


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "strided": {"strides": 2},
    "dilated": {"dilation_rate": 2},
    "of the whole input, in groups": {"split_input": False, "groups": 2},
    "in groups": {"groups": 3, "strides": 2},
    "three paths as wide as they say": {"kernel_sizes": (3, 5, 7), "keep_3x3": False},
    "three paths": {"kernel_sizes": (3, 5, 7), "strides": 2},
}


def test_contract() -> None:
    assert_layer_contract(
        lambda: SelectiveKernel2D(6, strides=2),
        (2, 5, 5, 8),
        output_shape=(2, 3, 3, 6),
        masks=False,
        policies=["mixed_bfloat16"],
        tolerance=1e-4,
    )


@pytest.mark.parametrize(("size", "training"), [((6, 6), False), ((5, 7), False), ((6, 5), True)])
@pytest.mark.parametrize("case", CASES)
def test_equals_its_formula(case: str, size: tuple[int, int], training: bool) -> None:
    layer = SelectiveKernel2D(6, **CASES[case])
    x = normal(4, *size, 12)
    layer.build(x.shape)
    w = random_weights(layer)
    assert_close(layer(x, training=training), twin(x, w, training=training, **CASES[case]), 1e-4 if training else 1e-5)


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


def test_channels_first_is_channels_last_transposed() -> None:
    last, first = (
        SelectiveKernel2D(6, groups=2, strides=2, data_format=data_format)
        for data_format in ("channels_last", "channels_first")
    )
    assert_channels_first_agrees(last, first, normal(2, 6, 7, 8))


def test_sizes_may_be_unknown() -> None:
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
    assert_close(layer(x), twin(x, w, factor=-2.0), 1e-5)


def test_the_drop_layer_learns_of_training() -> None:
    # At this rate little more than nothing is left.
    layer = SelectiveKernel2D(6, drop_block=keras.layers.Dropout(0.999, seed=1))
    x = normal(2, 5, 5, 4)
    assert np.mean(to_numpy(layer(x, training=True)) == 0) > 0.9
    assert np.mean(to_numpy(layer(x)) == 0) < 0.5


@pytest.mark.any_backend
def test_names_of_the_weights() -> None:
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
def test_channels_between(filters: int, ratio: float, divisor: int, between: int) -> None:
    layer = SelectiveKernel2D(filters, ratio=ratio, divisor=divisor)
    layer.build((None, 4, 4, 8))
    assert layer.reduce_norm.gamma.shape == (between,)


@pytest.mark.any_backend
def test_arguments_come_back() -> None:
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
def test_arguments_are_checked(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        make()
