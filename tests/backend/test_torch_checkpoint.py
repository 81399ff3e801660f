"""A checkpoint of PyTorch becomes arrays, and runs nothing."""

import argparse
import importlib
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from keras_residual._backend.torch_checkpoint import read
from keras_residual._errors import CheckpointError

pytestmark = pytest.mark.any_backend

KERNEL = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
WAY_OUT = (
    "and loading such an object can run any code, so nothing was loaded. Where you trust the file, load it once "
    "with torch.load(path, weights_only=False) and save the state dict alone: "
    "torch.save(model.state_dict(), path)."
)


def refused(path, message):
    with pytest.raises(CheckpointError, match=f"^{re.escape(f'Checkpoint {str(path)!r}: {message}')}$"):
        read(path)


def refused_as_damaged(path):
    start, end = re.escape(f"Checkpoint {str(path)!r}: the file is damaged"), re.escape(". Delete it and get it again.")
    reason = r" \([^\n]+\)|, or torch\.save did not write it"
    with pytest.raises(CheckpointError, match=f"^{start}({reason}){end}$"):
        read(path)


@pytest.fixture
def save_torch(tmp_path):
    def save(content, name="weights.pth", **options):
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return save


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class Innocent:
    """A class of the program that saved it."""


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("zipped", [True, False])
def test_floats_become_float32(save_torch, dtype, zipped):
    stored = torch.from_numpy(KERNEL).to(getattr(torch, dtype))
    path = save_torch({"w": stored, "t": stored.mT}, _use_new_zipfile_serialization=zipped)
    found = read(path)
    assert (found["w"].dtype, found["t"].flags.c_contiguous) == (np.float32, True)
    np.testing.assert_array_equal(found["w"], stored.float().numpy())
    np.testing.assert_array_equal(found["t"], stored.mT.float().numpy())


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "complex64"])
def test_other_types_stay(save_torch, dtype):
    stored = np.arange(3).astype(dtype)
    found = read(save_torch({"w": torch.from_numpy(stored)}))["w"]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, stored)


def test_scalars_and_empty_tensors_keep_their_shape(save_torch):
    found = read(save_torch({"scalar": torch.tensor(2.5, dtype=torch.float64), "none": torch.zeros((0, 3))}))
    assert (found["scalar"].shape, found["none"].shape) == ((), (0, 3))
    assert found["scalar"] == 2.5


def test_sparse_tensors_are_spread_out(save_torch):
    dense = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    found = read(save_torch({"sparse": dense.to_sparse()}))
    np.testing.assert_array_equal(found["sparse"], dense.numpy())


def test_what_is_no_tensor_stays(save_torch):
    found = read(save_torch({"epoch": 3, "nested": {"w": torch.nn.Parameter(torch.ones(2))}, "name": "net"}))
    assert (found["epoch"], found["name"]) == (3, "net")
    assert isinstance(found["nested"]["w"], np.ndarray)


@pytest.mark.parametrize("keep", [1, 30, 200, -1000, -1])
def test_bare_pickle_cut_off(save_torch, keep):
    path = save_torch({"w": torch.ones(999)}, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:keep])
    refused_as_damaged(path)


def test_zip_damaged(save_torch):
    path = save_torch({"w": torch.ones(999)})
    content = bytearray(path.read_bytes())
    content[40:200] = b"\xff" * 160
    path.write_bytes(content)
    refused_as_damaged(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_payload(tmp_path, save_torch, zipped):
    victim = tmp_path / "victim"
    content = {"w": torch.ones(1), "extra": Payload(victim)}
    path = save_torch(content, _use_new_zipfile_serialization=zipped)
    start, end = re.escape(f"Checkpoint {str(path)!r}: it holds the Python object "), re.escape(f", {WAY_OUT}")
    with pytest.raises(CheckpointError, match=rf"^{start}\S+{end}$"):
        read(path)
    assert not victim.exists()
    torch.load(path, weights_only=False)
    assert victim.exists(), "the payload works"


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_payload_in_a_plain_pickle(tmp_path, protocol):
    victim, path = tmp_path / "victim", tmp_path / "w.pth"
    path.write_bytes(pickle.dumps(Payload(victim), protocol))
    with pytest.raises(CheckpointError):
        read(path)
    assert not victim.exists()
    pickle.loads(path.read_bytes())
    assert victim.exists(), "the payload works"


def test_an_object_is_named(save_torch):
    path = save_torch({"w": torch.ones(1), "net": Innocent()})
    refused(path, f"it holds the Python object {Innocent.__module__}.Innocent, {WAY_OUT}")


def test_the_arguments_of_a_training_script_do_no_harm(save_torch):
    path = save_torch({"model": {"w": torch.ones(1)}, "args": argparse.Namespace(lr=0.1, epochs=3)})
    assert list(read(path)) == ["model", "args"]


def test_torch_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "keras_residual._backend.torch_checkpoint")
    message = "'torch' is not installed. This feature of keras-residual needs it: pip install 'keras-residual[torch]'"
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        importlib.import_module("keras_residual._backend.torch_checkpoint")
