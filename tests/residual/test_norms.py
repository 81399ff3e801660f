"""The batch norm of one operation against Keras's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from backend_helpers import gradients
from contract import assert_close, assert_layer_contract, to_numpy
from keras_residual.residual.norms import BatchNormalization, make_norm

RNG = np.random.default_rng(5)
SHAPES = [(6, 3), (4, 5, 3), (2, 5, 4, 3), (2, 2, 3, 4, 3)]


def normal(*shape: int) -> np.ndarray:
    return (3 * RNG.normal(size=shape) + 2).astype("float32")


def pair(shape: tuple[int, ...], **arguments: Any) -> tuple[keras.Layer, keras.Layer]:
    """Returns our layer and Keras's, with the same weights."""
    ours, stock = BatchNormalization(**arguments), keras.layers.BatchNormalization(**arguments)
    for layer in (ours, stock):
        layer.build(shape)
    rng = np.random.default_rng(1)
    weights = [rng.uniform(0.5, 1.5, weight.shape).astype("float32") for weight in stock.weights]
    for layer in (ours, stock):
        layer.set_weights(weights)
    return ours, stock


def assert_alike(ours: keras.Layer, stock: keras.Layer, x: Any, tolerance: float = 1e-5, **call: Any) -> None:
    found, expected = ours(x, **call), stock(x, **call)
    assert found.dtype == expected.dtype
    assert_close(to_numpy(found).astype("float32"), to_numpy(expected).astype("float32"), tolerance)
    for mine, theirs in zip(ours.weights, stock.weights, strict=True):
        assert_close(mine.value, theirs.value, 1e-5)


def test_contract() -> None:
    assert_layer_contract(lambda: BatchNormalization(epsilon=1e-5), (8, 6, 5, 4), output_shape=(8, 6, 5, 4))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_keras_s_layer(shape: tuple[int, ...], axis: int, training: bool) -> None:
    ours, stock = pair(shape, axis=axis, momentum=0.7, epsilon=1e-3)
    assert_alike(ours, stock, normal(*shape), training=training)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [
        {"scale": False},
        {"center": False},
        {"scale": False, "center": False},
        {"axis": 3},
        {"axis": 2},
        {"renorm": True},
    ],
    ids=str,
)
def test_it_is_so_with_every_argument(arguments: dict[str, Any], training: bool) -> None:
    ours, stock = pair((2, 5, 4, 3), **arguments)
    assert_alike(ours, stock, normal(2, 5, 4, 3), training=training)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float16"])
@pytest.mark.parametrize("training", [False, True])
def test_it_computes_in_float32_under_every_policy(policy: str, training: bool) -> None:
    ours, stock = pair((4, 5, 4, 3), dtype=policy)
    x = keras.ops.cast(normal(4, 5, 4, 3), ours.compute_dtype)
    assert_alike(ours, stock, x, 0.01, training=training)


def test_a_mask_leaves_positions_out_of_the_statistics() -> None:
    ours, stock = pair((4, 5, 3))
    mask = np.arange(5) < np.array([[5], [2], [1], [4]])
    assert_alike(ours, stock, normal(4, 5, 3), training=True, mask=keras.ops.convert_to_tensor(mask))


def test_a_frozen_layer_keeps_its_statistics() -> None:
    ours, stock = pair((4, 3))
    ours.trainable = stock.trainable = False
    before = [to_numpy(weight.value).copy() for weight in ours.weights]
    assert_alike(ours, stock, normal(4, 3), training=True)
    for weight, value in zip(ours.weights, before, strict=True):
        assert_close(weight.value, value, 0)


def test_one_value_a_channel_has_no_variance() -> None:
    ours, stock = pair((1, 1, 1, 3))
    assert_alike(ours, stock, normal(1, 1, 1, 3), training=True)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", SHAPES[1:3])
def test_its_gradients_are_keras_s(shape: tuple[int, ...], training: bool) -> None:
    ours, stock = pair(shape)
    x = normal(*shape)

    def of(layer: keras.Layer) -> Callable[..., Any]:
        return lambda x: layer(x, training=training)

    found, expected = (gradients(of(layer), [x], layer.trainable_variables) for layer in (ours, stock))
    for mine, theirs in zip([*found[0], *found[1]], [*expected[0], *expected[1]], strict=True):
        assert mine is not None
        assert theirs is not None
        assert_close(mine, theirs, 1e-4)


def test_weights_of_one_load_into_the_other(tmp_path: Path) -> None:
    ours, stock = (keras.Sequential([keras.Input((3,)), layer]) for layer in pair((None, 3)))
    stock.layers[0].gamma.assign([1.0, 2.0, 3.0])
    stock.save_weights(tmp_path / "stock.weights.h5")
    ours.load_weights(tmp_path / "stock.weights.h5")
    assert_close(ours.layers[0].gamma.value, [1.0, 2.0, 3.0])
    assert [weight.name for weight in ours.weights] == [weight.name for weight in stock.weights]


@pytest.mark.any_backend
def test_it_comes_back_from_its_configuration() -> None:
    layer = BatchNormalization(axis=1, momentum=0.8, epsilon=1e-4, scale=False, name="norm")
    config = keras.saving.serialize_keras_object(layer)
    assert config["registered_name"] == "keras_residual>BatchNormalization"
    assert keras.saving.deserialize_keras_object(config).get_config() == layer.get_config()


@pytest.mark.any_backend
def test_it_is_the_norm_of_that_name() -> None:
    norm = make_norm("batch_norm", channels=4, axis=1, name="norm", dtype="float32")
    assert isinstance(norm, BatchNormalization)
    assert isinstance(make_norm(norm, channels=4, axis=1, name="copy", dtype="float32"), BatchNormalization)
