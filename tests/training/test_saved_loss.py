"""The loss that a saved model is looked at with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_residual.training.saved import load_saved
from keras_residual.training.saved_loss import compiled_loss, loss_for

X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")


def saved(folder: Path, loss: Any, units: int = 1) -> Path:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(units)])
    if loss is not None:
        model.compile("sgd", loss)
    model.save(folder / "model.keras")
    return folder / "model.keras"


def strange(y: Any, outputs: Any) -> Any:
    return ops.abs(y - outputs)


@pytest.mark.any_backend
def test_of_numbers_it_is_any_that_the_file_has(tmp_path: Path) -> None:
    binary = loss_for(load_saved(saved(tmp_path, keras.losses.BinaryCrossentropy(from_logits=True))), X, classes=False)
    assert binary.get_config()["from_logits"] is True
    assert loss_for(load_saved(saved(tmp_path, "mae")), X, classes=False) is keras.losses.get("mae")
    assert loss_for(load_saved(saved(tmp_path, None)), X, classes=False) == "mse"


@pytest.mark.any_backend
def test_what_cannot_be_read_is_none(tmp_path: Path) -> None:
    for loss in (strange, [strange], None, {"dense": "mse"}):
        assert compiled_loss(saved(tmp_path, loss)) is None
    (tmp_path / "model.h5").write_bytes(b"no archive")
    assert compiled_loss(tmp_path / "model.h5") is None


@pytest.mark.any_backend
def test_of_classes_it_takes_labels(tmp_path: Path) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=1)
    assert loss_for(load_saved(saved(tmp_path, loss, 3)), X, classes=True).get_config()["ignore_class"] == 1
    for other in (keras.losses.CategoricalCrossentropy(from_logits=True), "mse", strange, None):
        found = loss_for(load_saved(saved(tmp_path, other, 3)), X, classes=True)
        assert isinstance(found, keras.losses.SparseCategoricalCrossentropy)
        assert found.get_config()["from_logits"] is True
