"""The `.h5` files of `keras.applications`: the same answers from our network of that kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format

import keras_residual as kr
from contract import to_numpy
from keras_residual.weights.files import read_checkpoint


def stranger() -> keras.Model:
    """Returns the network of Keras with random weights and statistics."""
    model = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), classes=7, classifier_activation=None)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) == 1:
            last = "3_bn" in weight.path and weight.path.endswith("gamma")
            low, high = (0.1, 0.4) if last else (0.7, 1.3)
            drawn = rng.uniform(low, high, weight.shape)
            if not weight.path.endswith(("gamma", "moving_variance")):
                drawn = rng.normal(0, 0.2, weight.shape)
            weight.assign(drawn)
    return model


def write(model: keras.Model, path: Path, *, nested: bool = False) -> Path:
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file.create_group("model_weights") if nested else file, model)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: Any) -> tuple[keras.Model, Path]:
    model = stranger()
    return model, write(model, tmp_path_factory.mktemp("keras") / "resnet50.h5")


@pytest.mark.any_backend
def test_answers_are_those_of_keras(file: tuple[keras.Model, Path]) -> None:
    theirs, path = file
    model = kr.create_model("keras_resnet50", input_shape=(64, 64, 3), num_classes=7, weights=path)
    x = np.random.default_rng(1).normal(size=(2, 64, 64, 3)).astype("float32")
    expected = to_numpy(theirs(x, training=False))
    assert np.abs(to_numpy(model(x, training=False)) - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.any_backend
def test_no_bias_is_left(file: tuple[keras.Model, Path]) -> None:
    names = set(read_checkpoint(file[1]))
    assert [name for name in names if "conv" in name and name.endswith("bias")] == []
    assert {"conv1.weight", "layer4.2.bn3.running_var", "layer2.0.downsample.0.weight", "fc.bias"} <= names


@pytest.mark.any_backend
def test_another_network_is_refused(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(4, 3, name="mine")(inputs))
    with pytest.raises(kr.CheckpointError, match="it holds a layer 'mine' with 'kernel', which they do not have"):
        read_checkpoint(write(model, tmp_path / "mine.h5", nested=True))


@pytest.mark.any_backend
def test_weights_in_keras_3s_form_are_refused_with_the_way_out(tmp_path: Path) -> None:
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    model.save_weights(tmp_path / "mine.weights.h5")
    with pytest.raises(kr.CheckpointError, match=r"Load them with model\.load_weights\(path\)\."):
        read_checkpoint(tmp_path / "mine.weights.h5")


@pytest.mark.any_backend
def test_a_damaged_file_is_refused(file: tuple[keras.Model, Path], tmp_path: Path) -> None:
    cut = tmp_path / "cut.h5"
    cut.write_bytes(file[1].read_bytes()[:100_000])
    with pytest.raises(kr.CheckpointError, match="the file is damaged"):
        read_checkpoint(cut)
