"""The loss around the weights of a small net, against weights that are moved by hand."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from contract import to_numpy
from keras_residual import Residual, ResidualStack
from keras_residual.xray import xray
from keras_residual.xray.find.structure import trained_weights
from keras_residual.xray.quantities.loss_slice import random_direction_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 6, 6, 2)).astype("float32")
Y = RNG.integers(0, 3, size=8)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def net(execution: str = "scan") -> keras.Model:
    """Returns a net with a convolution, batch norms whose statistics have moved, and a stack."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, padding="same", name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.GlobalAveragePooling2D()(layers.Activation("tanh")(x))
    x = ResidualStack(Residual(layers.Dense(4, activation="tanh")), 3, execution=execution, name="stack")(x)
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    for weight in model.get_layer("norm").non_trainable_weights:
        weight.assign(weight + 0.3)
    return model


def loss_by_hand(model: keras.Model, directions: list[Any], point: tuple[float, ...]) -> float:
    start = [(variable, to_numpy(variable.value)) for variable in model.trainable_variables]
    for along, direction in zip(point, directions, strict=True):
        for variable, moved in direction:
            variable.assign(to_numpy(variable.value) + along * moved)
    found = float(to_numpy(LOSS(Y, model(X, training=False))))
    for variable, value in start:
        variable.assign(value)
    return found


@pytest.mark.parametrize("execution", ["scan", "unrolled"])
def test_slice_and_surface_are_the_losses_of_moved_weights(execution: str) -> None:
    model = net(execution)
    before = [to_numpy(variable.value) for variable in model.variables]
    report = xray(model, X, Y, LOSS, quantities=["loss_slice", "loss_surface"])
    for was, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(was, to_numpy(variable.value))
    directions = [random_direction_of(model, seed) for seed in range(2)]
    line, plane = report.model["loss_slice"], report.model["loss_surface"]
    assert (len(line["at"]), len(line["loss"])) == (51, 51)
    assert np.array(plane["loss"]).shape == (21, 21) == (len(plane["at"]),) * 2
    for place in (0, 10, 25, 50):
        expected = loss_by_hand(model, directions[:1], (line["at"][place],))
        assert line["loss"][place] == pytest.approx(expected, rel=1e-4)
    for row, column in ((0, 0), (3, 17), (10, 10), (20, 5)):
        expected = loss_by_hand(model, directions, (plane["at"][row], plane["at"][column]))
        assert plane["loss"][row][column] == pytest.approx(expected, rel=1e-4)
    step = line["at"][26]
    ends = [loss_by_hand(model, directions[:1], (sign * step,)) for sign in (1, 0, -1)]
    assert line["curvature"] == pytest.approx((ends[0] - 2 * ends[1] + ends[2]) / step**2, rel=0.05, abs=1e-3)
    # The first direction of the plane is that of the line.
    np.testing.assert_allclose([row[10] for row in plane["loss"]][::10], line["loss"][::25], rtol=1e-4)


def test_the_direction_leaves_biases_and_norms_alone_and_is_as_long_as_each_filter() -> None:
    model = net()
    moved = {variable.path: direction for variable, direction in random_direction_of(model, 0)}
    assert len(moved) == len(model.trainable_variables)
    assert sum(direction.any() for direction in moved.values()) == 3  # the kernels
    kernels = {v.path: to_numpy(v.value) for v in model.trainable_variables if moved[v.path].any()}
    for path, kernel in kernels.items():
        axes = (1,) if "stack" in path else tuple(range(kernel.ndim - 1))
        lengths = [np.sqrt((array**2).sum(axis=axes)) for array in (kernel, moved[path])]
        assert lengths[0].shape == ((3, 4) if "stack" in path else (kernel.shape[-1],))
        np.testing.assert_allclose(lengths[0], lengths[1], rtol=1e-5)


class Odd(keras.layers.Layer):
    """Layers whose filters are not numbered by their last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = [
            layers.Embedding(7, 4, name="embedding"),
            layers.MultiHeadAttention(2, 3, name="attention"),
            layers.Conv1DTranspose(5, 3, name="transposed"),
            layers.DepthwiseConv1D(3, depth_multiplier=2, name="depthwise"),
            layers.SeparableConv1D(6, 2, name="separable"),
            layers.LayerNormalization(axis=(1, 2), name="norm"),
            layers.GRU(3, name="gru"),
        ]

    def call(self, inputs: Any) -> Any:
        x = self.parts[0](inputs)
        x = self.parts[1](x, x)
        for part in self.parts[2:]:
            x = part(x)
        return x


@pytest.mark.any_backend
def test_which_axes_number_the_filters() -> None:
    model = Odd()
    model(np.zeros((2, 6), "int32"))
    found = {variable.path.partition("/")[2]: axes for variable, axes in trained_weights(model)}
    expected = {
        "embedding/embeddings": (-2,),
        "attention/query/kernel": (-2, -1),
        "attention/query/bias": None,
        "attention/attention_output/kernel": (-1,),
        "transposed/kernel": (-2,),
        "transposed/bias": None,
        "depthwise/kernel": (-2, -1),
        "separable/depthwise_kernel": (-2, -1),
        "separable/pointwise_kernel": (-1,),
        "norm/gamma": None,
        "gru/gru_cell/kernel": (-1,),
        "gru/gru_cell/bias": None,
    }
    assert {path: found[path] for path in expected} == expected
    assert len(found) == len(model.trainable_variables)


def test_the_sharpness_is_at_least_the_curvature_along_any_direction() -> None:
    model = net()
    report = xray(model, X, Y, LOSS, quantities=["sharpness"])
    direction = random_direction_of(model, 4)
    length = sum((moved**2).sum() for _, moved in direction) ** 0.5
    step = 0.05
    there, here, back = (loss_by_hand(model, [direction], (sign * step / length,)) for sign in (1, 0, -1))
    assert report.model["sharpness"] > (there - 2 * here + back) / step**2
    assert 0 < report.model["sharpness"] < 1e3


def test_without_targets_it_is_refused_before_anything_runs() -> None:
    for name in ("lesion", "loss_slice", "loss_surface", "sharpness"):
        with pytest.raises(ValueError, match=f"xray: quantity '{name}' needs targets; pass `y`"):
            xray(net(), X, quantities=["cka", name])


def test_in_half_precision() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    report = xray(net(), X, Y, LOSS, quantities=["loss_slice"])
    assert np.isfinite(report.model["loss_slice"]["loss"]).all()
