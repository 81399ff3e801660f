"""On PyTorch models and layers are modules as Keras's own are: with parameters, state dicts, moves and optimizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import keras_residual as kr

if keras.backend.backend() != "torch":
    pytest.skip("modules are PyTorch's", allow_module_level=True)
import torch


def dense_block(index: int | None = None) -> kr.Residual:
    return kr.Residual([layers.Dense(6, activation="relu"), layers.Dense(6)], norm="batch_norm")


def functional(layer: keras.Layer, *shape: int) -> keras.Model:
    inputs = keras.Input(shape)
    return keras.Model(inputs, layer(inputs))


MODULES: dict[str, Any] = {
    "resnet18": lambda: kr.create_model("resnet18", input_shape=(32, 32, 3), num_classes=4),
    "resnetv2_50": lambda: kr.create_model("resnetv2_50", input_shape=(32, 32, 3), num_classes=4),
    "cifar_resnet20": lambda: kr.create_model("cifar_resnet20", input_shape=(16, 16, 3), num_classes=4),
    "cifar_resnet20 scanned": lambda: kr.create_model(
        "cifar_resnet20", input_shape=(16, 16, 3), num_classes=4, execution="scan"
    ),
    "tabular_resnet": lambda: kr.create_model("tabular_resnet", input_shape=(6,), num_classes=4),
    "series_resnet": lambda: kr.create_model("series_resnet", input_shape=(16, 2), num_classes=4),
    "a connection": lambda: functional(dense_block(), 6),
    "a stack": lambda: functional(kr.ResidualStack(dense_block(), 4), 6),
    "a scanned stack": lambda: functional(kr.ResidualStack(dense_block(), 4, execution="scan"), 6),
    "given blocks": lambda: functional(kr.ResidualStack(dense_block, 4), 6),
    "a reversible stack": lambda: functional(
        kr.ResidualStack(kr.Residual(layers.Dense(6)), 4, topology="reversible"), 6
    ),
    "streams": lambda: functional(kr.ResidualStack(kr.Residual(layers.Dense(6)), 3, topology="mhc"), 6),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_model_is_a_module(name: str, tmp_path: Path) -> None:
    model: Any = MODULES[name]()
    values = {id(variable.value) for variable in model.variables}
    state = model.state_dict()
    # First of all, before anything asks for parameters.
    assert {id(parameter) for parameter in model.parameters()} == values
    assert {tensor.data_ptr() for tensor in state.values()} == {v.value.data_ptr() for v in model.variables}

    x = np.random.default_rng(0).normal(size=(4, *model.input_shape[1:])).astype("float32")
    before = [weight.copy() for weight in model.get_weights()]
    expected = model.predict(x, verbose=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.zero_grad()
    model(torch.from_numpy(x), training=True).square().sum().backward()
    optimizer.step()
    trained = {id(variable) for variable in model.trainable_variables}
    moved = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert sum(moved) >= len(trained) // 2

    torch.save(state, tmp_path / "state.pt")
    model.set_weights(before)
    torch.save(model.state_dict(), tmp_path / "state.pt")
    other = MODULES[name]()
    other.load_state_dict(dict(zip(other.state_dict(), torch.load(tmp_path / "state.pt").values(), strict=True)))
    np.testing.assert_allclose(other.predict(x, verbose=0), expected, atol=1e-5)

    model.double()
    assert all(v.value.dtype == torch.float64 for v in model.variables if v.dtype == "float32")
