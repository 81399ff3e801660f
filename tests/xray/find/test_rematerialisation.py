"""Layers under `keras.RematScope` are looked at as those outside of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from contract import to_numpy
from keras_residual import Residual
from keras_residual.xray import xray

X = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")


class Block(layers.Layer):
    """A sum in its own `call`."""

    def __init__(self) -> None:
        super().__init__(name="block")
        self.dense = layers.Dense(6, activation="relu")

    def build(self, shape: Any) -> None:
        self.dense.build(shape)

    def call(self, inputs: Any) -> Any:
        return inputs + self.dense(inputs)


def plain() -> list[Any]:
    return [layers.Dense(6, activation="relu"), layers.BatchNormalization(), layers.Dense(3)]


def residual() -> list[Any]:
    return [Residual([layers.Dense(6, activation="relu"), layers.Dense(6)], norm="batch_norm"), layers.Dense(3)]


def of_others() -> list[Any]:
    return [Block(), layers.Dense(3)]


def net(parts: Callable[[], list[Any]]) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    x = inputs
    for layer in parts():
        x = layer(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize("parts", [plain, residual, of_others])
def test_the_numbers_are_those_of_the_same_net_outside_of_the_scope(parts: Callable[[], list[Any]]) -> None:
    with keras.RematScope("full"):
        model = net(parts)
    before = [to_numpy(variable.value) for variable in model.variables]
    modes = [layer._remat_mode for layer in model._flatten_layers()]
    found, expected = xray(model, X), xray(net(parts), X)
    assert any(mode is not None for mode in modes)
    assert modes == [layer._remat_mode for layer in model._flatten_layers()]
    for was, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(was, to_numpy(variable.value))
    assert [block["kind"] for block in found.blocks] == [block["kind"] for block in expected.blocks]
    for one, other in zip(found.blocks, expected.blocks, strict=True):
        for key in ("gradient_norm", "weight_gradient_norm", "variance", "dead_units"):
            assert one[key] == (None if other[key] is None else pytest.approx(other[key], rel=1e-4)), key
