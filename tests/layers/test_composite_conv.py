"""The multi-scale convolution against its formula in NumPy, and how far each part sees."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest

from contract import assert_close, assert_layer_contract, to_numpy
from keras_residual.layers.composite_conv import MultiScaleConv2D
from map_formulas import assert_channels_first_agrees, conv, norm, random_weights, relu

RNG = np.random.default_rng(9)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype("float32")


def window_means(x: np.ndarray, strides: int) -> np.ndarray:
    """The means over 3×3 windows, by 9 in the corners too."""
    padded = np.pad(x.astype("float64"), [(0, 0), (1, 1), (1, 1), (0, 0)])
    rows, columns = (range(0, size, strides) for size in x.shape[1:3])
    means = [[padded[:, i : i + 3, j : j + 3].sum(axis=(1, 2)) / 9 for j in columns] for i in rows]
    return np.moveaxis(np.array(means), 2, 0)


def twin(
    x: np.ndarray,
    w: dict[str, np.ndarray],
    *,
    scale: int = 4,
    strides: int = 1,
    dilation_rate: int = 1,
    groups: int = 1,
    first: bool = False,
    training: bool = False,
) -> np.ndarray:
    parts = np.split(x, scale, axis=-1)
    outputs = []
    for i in range(scale - 1):
        given = parts[i] if first or i == 0 else parts[i] + outputs[i - 1]
        y = conv(given, w, f"conv{i}", strides=strides, dilation=dilation_rate, groups=groups)
        outputs.append(relu(norm(y, w, f"norm{i}", training=training)))
    last = window_means(parts[-1], strides) if first else parts[-1]
    return np.concatenate([*outputs, last], axis=-1)


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "two scales": {"scale": 2},
    "first": {"first": True},
    "first and strided": {"first": True, "strides": 2},
    "in groups": {"groups": 2},
    "dilated": {"dilation_rate": 2, "scale": 3},
}


def test_contract() -> None:
    assert_layer_contract(lambda: MultiScaleConv2D(2, scale=3), (2, 5, 5, 6), output_shape=(2, 5, 5, 6), masks=False)


def test_contract_with_strides() -> None:
    assert_layer_contract(
        lambda: MultiScaleConv2D(2, scale=3, strides=2, first=True),
        (2, 5, 5, 6),
        output_shape=(2, 3, 3, 6),
        masks=False,
        policies=["mixed_bfloat16"],
    )


@pytest.mark.parametrize(("size", "training"), [((6, 6), False), ((5, 7), False), ((6, 5), True)])
@pytest.mark.parametrize("case", CASES)
def test_equals_its_formula(case: str, size: tuple[int, int], training: bool) -> None:
    layer = MultiScaleConv2D(4, **CASES[case])
    x = normal(2, *size, 4 * CASES[case].get("scale", 4))
    layer.build(x.shape)
    w = random_weights(layer)
    assert_close(layer(x, training=training), twin(x, w, training=training, **CASES[case]), 1e-4 if training else 1e-5)


def test_training_moves_the_statistics_of_each_norm() -> None:
    layer = MultiScaleConv2D(2, scale=3)
    x = normal(4, 5, 5, 6)
    layer.build(x.shape)
    before = random_weights(layer)
    layer(x, training=True)
    after = {w.path.split("/", 1)[1]: to_numpy(w.value) for w in layer.weights}
    moved = {path for path in after if np.any(after[path] != before[path].astype("float32"))}
    assert moved == {f"{name}/moving_{which}" for name in ("norm0", "norm1") for which in ("mean", "variance")}
    expected = 0.9 * before["norm0/moving_mean"] + 0.1 * conv(x[..., :2], before, "conv0").mean(axis=(0, 1, 2))
    assert_close(after["norm0/moving_mean"], expected.astype("float32"), 1e-5)


@pytest.mark.parametrize(("first", "reach"), [(False, [1, 2, 3, 0]), (True, [1, 1, 1, 1])])
def test_each_part_sees_further_than_the_one_before(first: bool, reach: list[int]) -> None:
    layer = MultiScaleConv2D(1, scale=4, first=first)
    layer.build((None, 9, 9, 4))
    # Kernels of ones, and inputs that are not negative: nothing cancels, nothing is cut off.
    layer.set_weights([np.ones(weight.shape) for weight in layer.weights])
    plain, changed = np.ones((1, 9, 9, 4), "float32"), np.ones((1, 9, 9, 4), "float32")
    changed[:, 4, 4] = 2.0
    differs = to_numpy(layer(changed)) != to_numpy(layer(plain))
    rows = [np.flatnonzero(differs[0, :, 4, part]) for part in range(4)]
    assert [list(row) for row in rows] == [list(range(4 - far, 5 + far)) for far in reach]


def test_channels_first_is_channels_last_transposed() -> None:
    last, first = (
        MultiScaleConv2D(2, scale=4, strides=2, first=True, groups=2, data_format=data_format)
        for data_format in ("channels_last", "channels_first")
    )
    assert_channels_first_agrees(last, first, normal(2, 6, 7, 8))


def test_sizes_may_be_unknown() -> None:
    layer = MultiScaleConv2D(2, strides=2, first=True)
    inputs = keras.Input((None, None, 8))
    outputs = layer(inputs)
    assert outputs.shape == (None, None, None, 8)
    model = keras.Model(inputs, outputs)
    for size in (5, 8):
        x = normal(2, size, size, 8)
        assert_close(model.predict(x, verbose=0), layer(x), 1e-5)


@pytest.mark.any_backend
def test_names_of_the_weights() -> None:
    layer = MultiScaleConv2D(6, scale=3, groups=2, name="conv2")
    layer.build((None, 8, 8, 18))
    norms = [f"norm{i}/{name}" for i in (0, 1) for name in ("gamma", "beta", "moving_mean", "moving_variance")]
    kernels = ["conv0/kernel", "conv1/kernel"]
    assert sorted(weight.path for weight in layer.weights) == sorted(f"conv2/{name}" for name in (*norms, *kernels))
    assert tuple(layer.convs[1].kernel.shape) == (3, 3, 3, 6)


@pytest.mark.any_backend
def test_arguments_come_back() -> None:
    arguments = {"filters_per_scale": 6, "scale": 3, "strides": 2, "dilation_rate": 3, "groups": 2, "first": True}
    arguments |= {"data_format": "channels_first"}
    copy = MultiScaleConv2D.from_config(MultiScaleConv2D(**arguments).get_config())
    assert {name: getattr(copy, name) for name in arguments} == arguments


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: MultiScaleConv2D(5, groups=2, name="m"),
            ValueError,
            "MultiScaleConv2D 'm': `filters_per_scale` must be a multiple of `groups`, which is 2, but received 5 "
            "(int).",
        ),
        (
            lambda: MultiScaleConv2D(4, scale=1, name="m"),
            ValueError,
            "MultiScaleConv2D 'm': `scale` must be a whole number of at least 2, but received 1 (int).",
        ),
        (
            lambda: MultiScaleConv2D(4, first=0, name="m"),
            TypeError,
            "MultiScaleConv2D 'm': `first` must be True or False, but received 0 (int).",
        ),
        (
            lambda: MultiScaleConv2D(4, strides=2, name="m"),
            ValueError,
            "MultiScaleConv2D 'm': `strides` must be 1 where the parts are added, but received 2 (int). Pass "
            "first=True.",
        ),
        (
            lambda: MultiScaleConv2D(4, name="m").build((None, 8, 8, 32)),
            ValueError,
            "MultiScaleConv2D 'm': `inputs` must be a tensor with scale * filters_per_scale, 16, channels, but "
            "received (None, 8, 8, 32) (tuple). The shape is shown.",
        ),
        (
            lambda: MultiScaleConv2D(4, name="m").build((None, 8, 16)),
            ValueError,
            "MultiScaleConv2D 'm': `inputs` must be a tensor of rank 4, but received (None, 8, 16) (tuple). The shape "
            "is shown.",
        ),
    ],
)
def test_arguments_are_checked(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        make()
