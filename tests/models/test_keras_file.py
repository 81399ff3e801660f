"""A `.keras` file of others: the model comes back as it was, and nothing of a hostile one reaches Keras."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

import keras_residual as kr
from contract import to_numpy
from keras_residual.models.keras_file import KerasFileError, load_keras_model


def small() -> keras.Model:
    x = inputs = keras.Input((4,))
    for n in range(2):
        x = kr.Residual([keras.layers.Dense(4, name=f"dense{n}")], norm="batch_norm", drop_path_rate=0.1)(x)
    return keras.Model(inputs, keras.layers.Dense(2)(x))


def text_model() -> keras.Model:
    """A model with an asset."""
    words = keras.layers.StringLookup()
    words.adapt(np.array(["a", "a", "b"]))
    return keras.Sequential([keras.Input((1,), dtype="string"), words])


@pytest.fixture
def saved(tmp_path: Path) -> tuple[keras.Model, Path]:
    model = small()
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "seed" not in weight.path:
            weight.assign(rng.uniform(0.5, 1, weight.shape))
    model.compile("adam", "mse")
    model.fit(np.ones((4, 4)), np.ones((4, 2)), verbose=0)
    model.save(tmp_path / "model.keras")
    return model, tmp_path / "model.keras"


def test_a_model_comes_back_as_it_was(saved: tuple[keras.Model, Path]) -> None:
    model, path = saved
    x = np.random.default_rng(1).normal(size=(3, 4))
    for compiled in (False, True):
        found = load_keras_model(path, compiled=compiled)
        assert found.compiled == compiled
        np.testing.assert_array_equal(to_numpy(found(x)), to_numpy(model(x)))
        for weight, expected in zip(found.weights, model.weights, strict=True):
            np.testing.assert_array_equal(to_numpy(weight), to_numpy(expected))
    optimizer: Any = model.optimizer
    for value, expected in zip(found.optimizer.variables, optimizer.variables, strict=True):
        np.testing.assert_array_equal(to_numpy(value), to_numpy(expected))


@pytest.mark.parametrize("policy", ["bfloat16", "float16", "mixed_bfloat16"])
def test_each_type_of_weights_comes_back(tmp_path: Path, policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    model = small()
    model.save(tmp_path / "model.keras")
    found = load_keras_model(tmp_path / "model.keras")
    for weight, expected in zip(found.weights, model.weights, strict=True):
        assert weight.dtype == expected.dtype
        np.testing.assert_array_equal(to_numpy(weight.value), to_numpy(expected.value))


@pytest.mark.any_backend
def test_a_model_with_an_asset_comes_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    model = text_model()
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert any(name.startswith("assets/") for name in archive.namelist())
    found: Any = load_keras_model(tmp_path / "model.keras")
    assert found.layers[0].get_vocabulary() == ["[UNK]", "a", "b"]


def own_loss(y: Any, outputs: Any) -> Any:
    return keras.ops.mean(outputs - y)


@pytest.mark.any_backend
def test_a_loss_of_the_users_own_does_not_keep_the_model_from_loading(tmp_path: Path) -> None:
    model = small()
    model.compile("adam", own_loss)
    model.save(tmp_path / "model.keras")
    assert not load_keras_model(tmp_path / "model.keras", compiled=True).compiled


@pytest.mark.any_backend
def test_no_variable_is_left_to_be_initialised(saved: tuple[keras.Model, Path]) -> None:
    from keras.src.backend.common import global_state

    before = list(global_state.get_global_attribute("uninitialized_variables") or [])
    load_keras_model(saved[1])
    assert list(global_state.get_global_attribute("uninitialized_variables") or []) == before


# What is refused ----------------------------------------------------------------------------------------------------

Change = Callable[[dict[str, bytes], Path], None]


def changed(path: Path, change: Change) -> None:
    """Writes the model file anew, with other contents by name."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members, path.parent)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def of_weights(change: Callable[[Any, Path], None]) -> Change:
    def change_members(members: dict[str, bytes], folder: Path) -> None:
        file = io.BytesIO(members["model.weights.h5"])
        with h5py.File(file, "r+") as weights:
            change(weights["layers"]["dense"]["vars"], folder)
        members["model.weights.h5"] = file.getvalue()

    return change_members


@of_weights
def external_values(variables: Any, folder: Path) -> None:
    del variables["1"]
    variables.create_dataset("1", (2,), "f4", external=[(str(folder / "secret"), 0, 8)])


@of_weights
def external_link(variables: Any, folder: Path) -> None:
    del variables["1"]
    variables["1"] = h5py.ExternalLink(str(folder / "other.h5"), "/secret")


@of_weights
def virtual_values(variables: Any, folder: Path) -> None:
    del variables["1"]
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "secret", (2,))
    variables.create_virtual_dataset("1", layout)


@of_weights
def nothing_written(variables: Any, folder: Path) -> None:
    del variables["1"]
    variables.create_dataset("1", (2 * 10**9,), "f4")


def of_config(change: Callable[[dict[str, Any]], None]) -> Change:
    def change_members(members: dict[str, bytes], folder: Path) -> None:
        config = json.loads(members["config.json"])
        change(config)
        members["config.json"] = json.dumps(config).encode()

    return change_members


@of_config
def huge_layer(config: dict[str, Any]) -> None:
    last = config["config"]["layers"][-1]
    last["config"]["units"] = 10**9


@of_config
def no_class(config: dict[str, Any]) -> None:
    config["class_name"] = "subprocess\x1bPopen"


def deep_config(members: dict[str, bytes], folder: Path) -> None:
    members["config.json"] = b'{"a":' * 100_000


def list_config(members: dict[str, bytes], folder: Path) -> None:
    members["config.json"] = b"[]"


def doubled_config(members: dict[str, bytes], folder: Path) -> None:
    members["config.json"] = b'{"module": 1, "module": 2}'


def no_metadata(members: dict[str, bytes], folder: Path) -> None:
    members["metadata.json"] = b"{"


def out_of_the_folder(members: dict[str, bytes], folder: Path) -> None:
    members["assets/../../../x"] = b""


def backwards_out_of_the_folder(members: dict[str, bytes], folder: Path) -> None:
    members["assets/..\\..\\x"] = b""


def absolute(members: dict[str, bytes], folder: Path) -> None:
    members["/etc/x"] = b""


def other_weights(members: dict[str, bytes], folder: Path) -> None:
    members["model.weights.npz"] = b""


def no_weights(members: dict[str, bytes], folder: Path) -> None:
    del members["model.weights.h5"]


def no_config(members: dict[str, bytes], folder: Path) -> None:
    del members["config.json"]


def damaged_weights(members: dict[str, bytes], folder: Path) -> None:
    content = bytearray(members["model.weights.h5"])
    content[content.index(b"GCOL") + 9] = 0
    members["model.weights.h5"] = bytes(content)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (external_values, "of its weights: '/layers/dense/vars/1' has its values in other files"),
        (external_link, "of its weights: '1' in '/layers/dense/vars' is a link to another place"),
        (virtual_values, "of its weights: '/layers/dense/vars/1' has its values in other arrays or files"),
        (nothing_written, "of its weights: '/layers/dense/vars/1' of the shape (2000000000,) claims 8000000000 bytes"),
        (damaged_weights, "of its weights: the file is damaged ("),
        (huge_layer, "its configuration claims 5000000072 weights, but the file has "),
        (no_class, r"Could not deserialize 'keras.src.models.functional.subprocess\x1bPopen'"),
        (deep_config, "of its config.json: it is nested too deep"),
        (list_config, "its config.json is no JSON object"),
        (doubled_config, "of its config.json: it has 'module' twice"),
        (no_metadata, "of its metadata.json: it is no JSON ("),
        (out_of_the_folder, "it has 'assets/../../../x', which Keras does not write"),
        (backwards_out_of_the_folder, r"it has 'assets/..\\..\\x', which Keras does not write"),
        (absolute, "it has '/etc/x', which Keras does not write"),
        (other_weights, "it has 'model.weights.npz', which Keras does not write"),
        (no_weights, "it has no model.weights.h5"),
        (no_config, "it has no config.json"),
    ],
)
def test_a_hostile_file_is_refused(saved: tuple[keras.Model, Path], change: Change, reason: str) -> None:
    _, path = saved
    (path.parent / "secret").write_bytes(b"SECRETS!")
    with h5py.File(path.parent / "other.h5", "w") as other:
        other["secret"] = np.frombuffer(b"SECRETS!", "f4")
    changed(path, change)
    with pytest.raises(KerasFileError, match=re.escape(f"{path} cannot be read as a Keras model: {reason}")) as caught:
        load_keras_model(path)
    assert str(caught.value).isprintable()
    assert "SECRETS" not in str(caught.value)


@pytest.mark.any_backend
def test_code_is_not_run(tmp_path: Path) -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs))
    model.save(tmp_path / "model.keras")
    with pytest.raises(KerasFileError, match=r"cannot be read as a Keras model: .*Lambda"):
        load_keras_model(tmp_path / "model.keras")


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is damaged: it is empty. Take another copy of it, or train again"),
        (b"PK\x05\x06" + bytes(18), "it has no config.json"),
        (
            b"\x89HDF\r\n\x1a\n",
            "it is not a .keras file. Load it with Keras and save it as one: model.save('model.keras')",
        ),
    ],
)
def test_what_is_no_model(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    with pytest.raises(KerasFileError, match=f"^{re.escape(f'{path} cannot be read as a Keras model: {reason}')}$"):
        load_keras_model(path)


@pytest.mark.any_backend
def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(KerasFileError, match="it is not a regular file"):
        load_keras_model(tmp_path)
