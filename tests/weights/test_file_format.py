"""The format of a checkpoint is told by its content, and so is what is no checkpoint."""

import re
import zipfile

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from keras_residual._errors import CheckpointError
from keras_residual.weights.files import file_format, is_cut_off

pytestmark = pytest.mark.any_backend

KERNEL = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
GET_AGAIN = "Delete it and get it again."
FORMATS = "Give a .safetensors, a .pth, .pt, .th or .bin that torch.save wrote, or a .npz."


def refused(path, message):
    with pytest.raises(CheckpointError, match=f"^{re.escape(f'Checkpoint {str(path)!r}: {message}')}$"):
        file_format(path)


def cut(path, keep):
    content = path.read_bytes()
    path.write_bytes(content[: keep if keep >= 0 else len(content) + keep])


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


def test_the_content_decides_not_the_name(tmp_path, safetensors_file, npz_file, save_torch):
    of_torch = save_torch({"kernel": torch.ones(1)})
    bare = save_torch({"kernel": torch.ones(1)}, "bare.th", _use_new_zipfile_serialization=False)
    for path, kind in ((safetensors_file, "safetensors"), (npz_file, "npz"), (of_torch, "pytorch"), (bare, "pytorch")):
        assert file_format(path) == kind
        for name in ("a.bin", "a.safetensors", "a.npz", "a"):
            path = path.rename(tmp_path / name)
            assert file_format(path) == kind
            assert not is_cut_off(path)


def test_missing(tmp_path):
    refused(tmp_path / "no.pth", "there is no such file. Check the path.")


def test_folder(tmp_path):
    refused(tmp_path, "it is a folder. Give the file in it that holds the weights.")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.npz", "w"])
def test_empty(tmp_path, name):
    (tmp_path / name).touch()
    refused(tmp_path / name, f"the file is empty. {GET_AGAIN}")


@pytest.mark.parametrize("keep", [1, 8, 9, 40, -30, -1])
def test_safetensors_cut_off(safetensors_file, keep):
    cut(safetensors_file, keep)
    size = safetensors_file.stat().st_size
    refused(safetensors_file, f"the file is cut off after {size} bytes. {GET_AGAIN}")


@pytest.mark.parametrize("keep", [20, 300, -1])
@pytest.mark.parametrize("kind", ["pytorch", "npz"])
def test_zip_cut_off(save_torch, npz_file, kind, keep):
    path = npz_file if kind == "npz" else save_torch({"w": torch.ones(999)})
    cut(path, keep)
    refused(path, f"the file is cut off after {path.stat().st_size} bytes. {GET_AGAIN}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"some text that is long enough", f"its format is not known. {FORMATS}"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:12",
            "it is a pointer that Git LFS leaves for the file. Get the file itself: git lfs pull.",
        ),
        (b"\n<!DOCTYPE html><html>", "it is a web page. Download the file itself, not the page about it."),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.txt"])
def test_unknown_format(tmp_path, content, message, name):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, message)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            ["config.json", "model.weights.h5"],
            "it is a whole Keras model. Load it with keras.saving.load_model(path).",
        ),
        (
            ["m/data.pkl", "m/constants.pkl"],
            "it is a TorchScript program, not a checkpoint. "
            "Load it with torch.jit.load(path) and save its weights: torch.save(model.state_dict(), path).",
        ),
        (["readme.txt"], f"it is a zip file without weights. {FORMATS}"),
    ],
)
def test_other_zips(tmp_path, members, message):
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, b"")
    refused(path, message)
