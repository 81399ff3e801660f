"""Modules of PyTorch as layers of Keras: each is one function, and what fades within it is seen from outside."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from keras_residual.xray import xray

pytestmark = pytest.mark.skipif(keras.backend.backend() != "torch", reason="of PyTorch")

X = np.random.default_rng(0).normal(size=(32, 16)).astype("float32")


class Net(keras.Model):
    """A module, with a shortcut around it or without, and a head."""

    def __init__(self, count: int, *, shortcut: bool) -> None:
        super().__init__()
        from torch import nn

        parts = [part for _ in range(count) for part in (nn.Linear(16, 16), nn.Sigmoid())]
        self.inner = layers.TorchModuleWrapper(nn.Sequential(*parts), name="inner")
        self.head = layers.Dense(3, name="head")
        self.shortcut = shortcut

    def call(self, inputs: Any) -> Any:
        x = self.inner(inputs)
        return self.head(inputs + x if self.shortcut else x)


def test_a_torch_module_of_many_layers_through_which_the_gradient_fades_is_named() -> None:
    (entry,) = xray(Net(12, shortcut=False), X).advice
    assert (entry.rule, entry.block) == ("gradient_vanishes", "inner")


def test_a_short_torch_module_is_not_and_neither_is_one_with_a_shortcut() -> None:
    assert xray(Net(1, shortcut=False), X).advice == []
    report = xray(Net(2, shortcut=True), X)
    assert report.advice == []
    assert report.blocks[0]["weight_gradient_norm"] > 0
