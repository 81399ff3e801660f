"""A checkpoint file becomes a dictionary of arrays, whatever wrote it."""

import os
import re
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from keras_residual._errors import CheckpointError
from keras_residual.weights.checkpoint import read_checkpoint

pytestmark = pytest.mark.any_backend

SHARED = Path(os.environ.get("KERAS_RESIDUAL_TEST_DATA", Path(__file__).parents[3] / "shared"))
KERNEL = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
GET_AGAIN = "Delete it and get it again."


def refused(path, message):
    with pytest.raises(CheckpointError, match=f"^{re.escape(f'Checkpoint {str(path)!r}: {message}')}$"):
        read_checkpoint(path)


def refused_as_damaged(path, way_out=GET_AGAIN, what="the file is damaged"):
    start, end = re.escape(f"Checkpoint {str(path)!r}: {what} ("), re.escape(f"). {way_out}")
    with pytest.raises(CheckpointError, match=f"^{start}[^\n]+{end}$"):
        read_checkpoint(path)


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def save_torch(tmp_path):
    def save(content, name="weights.pth", **options):
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return save


@pytest.fixture
def safetensors_file(tmp_path):
    save_file({"kernel": KERNEL, "bias": KERNEL[0, 0]}, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def npz_file(tmp_path):
    np.savez(tmp_path / "weights.npz", kernel=KERNEL)
    return tmp_path / "weights.npz"


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float32", "float64"])
def test_floats_of_safetensors_become_float32(tmp_path, dtype):
    stored = KERNEL.astype(dtype)
    save_file({"w": stored}, tmp_path / "w.safetensors")
    found = read_checkpoint(tmp_path / "w.safetensors")["w"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, stored.astype(np.float32))


def test_floats_of_npz_become_float32(tmp_path):
    np.savez(tmp_path / "w.npz", half=KERNEL.astype(np.float16), double=KERNEL.astype(np.float64))
    found = read_checkpoint(tmp_path / "w.npz")
    assert {array.dtype.name for array in found.values()} == {"float32"}
    np.testing.assert_array_equal(found["double"], KERNEL)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool"])
def test_other_types_stay(tmp_path, dtype):
    stored = np.arange(3).astype(dtype)
    save_file({"w": stored}, tmp_path / "w.safetensors")
    np.savez(tmp_path / "w.npz", w=stored)
    paths = tmp_path / "w.safetensors", tmp_path / "w.npz"
    for found in map(read_checkpoint, paths):
        assert found["w"].dtype == dtype
        np.testing.assert_array_equal(found["w"], stored)


def test_scalars_and_empty_arrays_keep_their_shape(tmp_path, save_torch):
    stored = {"scalar": np.array(2.5, np.float64), "none": np.zeros((0, 3), np.float16)}
    save_file(stored, tmp_path / "w.safetensors")
    np.savez(tmp_path / "w.npz", **stored)
    of_torch = save_torch({name: torch.from_numpy(array) for name, array in stored.items()})
    for found in map(read_checkpoint, (tmp_path / "w.safetensors", tmp_path / "w.npz", of_torch)):
        assert (found["scalar"].shape, found["none"].shape) == ((), (0, 3))
        assert found["scalar"] == 2.5


def test_a_float_that_numpy_lacks_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    header = b'{"w":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"ab")
    refused(path, "the tensor 'w' is of type F8_E4M3. Save it as float32, float16 or bfloat16.")


def test_text_in_npz_is_refused(tmp_path):
    np.savez(tmp_path / "w.npz", w=np.array(["a"]))
    refused(tmp_path / "w.npz", "the array 'w' is of type <U1. Leave it out.")


@pytest.mark.parametrize("kind", ["safetensors_file", "npz_file"])
def test_arrays_do_not_depend_on_the_file(request, kind):
    path = request.getfixturevalue(kind)
    found = read_checkpoint(path)["kernel"]
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(b"\xff" * size)
    np.testing.assert_array_equal(found, KERNEL)


def test_the_content_decides_not_the_name(tmp_path, safetensors_file, npz_file, save_torch):
    named_wrong = {
        safetensors_file: "a.bin",
        npz_file: "b.pth",
        save_torch({"kernel": torch.from_numpy(KERNEL)}): "c.safetensors",
    }
    for path, name in named_wrong.items():
        np.testing.assert_array_equal(read_checkpoint(path.rename(tmp_path / name))["kernel"], KERNEL)


def test_a_path_may_be_text_and_begin_at_home(monkeypatch, tmp_path, npz_file):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert list(read_checkpoint(f"~/{npz_file.name}")) == ["kernel"]


def test_safetensors_damaged(safetensors_file):
    content = safetensors_file.read_bytes()
    safetensors_file.write_bytes(content.replace(b'"F32"', b'"F99"'))
    refused_as_damaged(safetensors_file)
    safetensors_file.write_bytes(content + b"more")
    refused_as_damaged(safetensors_file)


def test_npz_damaged(npz_file):
    content = bytearray(npz_file.read_bytes())
    content[40:200] = b"\xff" * 160
    npz_file.write_bytes(content)
    refused_as_damaged(npz_file, "Write it with numpy.savez, from arrays of numbers.", what="it cannot be read as npz")


def test_objects_in_npz(tmp_path):
    victim = tmp_path / "victim"
    np.savez(tmp_path / "w.npz", w=np.array([Payload(victim)], dtype=object))
    refused(
        tmp_path / "w.npz",
        "it cannot be read as npz (Object arrays cannot be loaded when allow_pickle=False). "
        "Write it with numpy.savez, from arrays of numbers.",
    )
    assert not victim.exists()


def install(package, extra):
    message = (
        f"{package!r} is not installed. This feature of keras-residual needs it: pip install 'keras-residual[{extra}]'"
    )
    return f"^{re.escape(message)}$"


def test_safetensors_is_missing(monkeypatch, safetensors_file):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=install("safetensors", "hub")):
        read_checkpoint(safetensors_file)


def test_safetensors_and_npz_need_no_torch(monkeypatch, safetensors_file, npz_file):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "keras_residual._backend.torch_checkpoint", raising=False)
    for path in (safetensors_file, npz_file):
        np.testing.assert_array_equal(read_checkpoint(path)["kernel"], KERNEL)


def test_a_checkpoint_of_another_program():
    path = SHARED / "weights" / "resnet20-12fca82f.th"
    if not path.is_file():
        pytest.skip(f"needs {path}; KERAS_RESIDUAL_TEST_DATA names the folder that holds weights/")
    found = read_checkpoint(path)
    assert found["conv1.weight"].shape == (16, 3, 3, 3)
    assert found["linear.weight"].shape == (10, 64)
    assert {array.dtype.name for array in found.values()} == {"float32"}
    # 19 convolutions, the linear layer, and four vectors of each of 19 batch norms: option A has no projections.
    assert len(found) == 19 + 2 + 19 * 4
    statistics = sum(array.size for name, array in found.items() if "running" in name)
    assert sum(array.size for array in found.values()) - statistics == 269_722
