"""A safetensors file is whole or not there, and says what was put in."""

import os
import re
import sys

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

from keras_residual.weights.save import write_safetensors

pytestmark = pytest.mark.any_backend

KERNEL = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)


def read(path):
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118 - no mapping


def refused(kind, message, *arguments, **options):
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        write_safetensors(*arguments, **options)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", ml_dtypes.bfloat16, "float32", "complex64"])
def test_arrays_come_back(tmp_path, dtype):
    stored = {"w": KERNEL.astype(dtype), "scalar": np.ones((), dtype), "none": np.zeros((0, 3), dtype)}
    write_safetensors(tmp_path / "w.safetensors", stored)
    found, metadata = read(tmp_path / "w.safetensors")
    assert found.keys() == stored.keys()
    assert metadata is None
    for name, array in stored.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("change", [np.transpose, lambda x: x[::2, ::-1], lambda x: x.astype(">f4"), np.asfortranarray])
def test_the_order_in_memory_does_not_matter(tmp_path, change):
    array = change(KERNEL)
    write_safetensors(tmp_path / "w.safetensors", {"w": array})
    np.testing.assert_array_equal(read(tmp_path / "w.safetensors")[0]["w"], array)


def test_metadata_come_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_safetensors("w.safetensors", {"w": KERNEL}, {"architecture": "resnet18"})
    assert read("w.safetensors")[1] == {"architecture": "resnet18"}


def test_a_file_is_replaced_only_when_asked_for(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"old")
    message = f"write_safetensors: {str(path)!r} exists. Pass `overwrite=True`, or choose another name."
    refused(FileExistsError, message, path, {"w": KERNEL})
    assert path.read_bytes() == b"old"
    write_safetensors(path, {"w": KERNEL}, overwrite=True)
    np.testing.assert_array_equal(read(path)[0]["w"], KERNEL)


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_who_may_read_it_is_the_users_choice(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_safetensors(tmp_path / "w.safetensors", {"w": KERNEL})
    finally:
        os.umask(before)
    assert (tmp_path / "w.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask


def test_an_error_in_mid_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"old")

    def fail(arrays, name, metadata):
        name.write_bytes(b"half")
        raise OSError("disk")

    monkeypatch.setattr("safetensors.numpy.save_file", fail)
    refused(OSError, "disk", path, {"w": KERNEL}, overwrite=True)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_disk_that_fills_leaves_the_old_file_and_no_rest(tmp_path):
    resource = pytest.importorskip("resource", reason="Windows has no limit on the size of a file")
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        message = re.escape(f"write_safetensors: {str(path)!r} could not be written (")
        with pytest.raises(OSError, match=rf"^{message}.+\)\.$"):
            write_safetensors(path, {"w": np.ones(1000)}, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tensors": {}}, "`tensors` must be a dictionary with an array at least, but received {} (dict)."),
        (
            {"tensors": {"w": np.array(["a"])}},
            "`tensors['w']` must be of one of the types bfloat16, bool, complex64, float16, float32, float64, int16, "
            "int32, int64, int8, uint16, uint32, uint64, uint8, but received 'str32' (str).",
        ),
        (
            {"tensors": {"w": KERNEL}, "metadata": {"epochs": 3}},
            "`metadata` must be texts by name, but received {'epochs': 3} (dict). "
            "Turn other values into text: json.dumps.",
        ),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, arguments, message):
    refused(ValueError, f"write_safetensors: {message}", tmp_path / "w.safetensors", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing_is_refused(tmp_path):
    path = tmp_path / "no" / "w.safetensors"
    message = (
        f"write_safetensors: `path` must be in a folder that exists, but received {str(path)!r} (str). "
        "Make the folder, or choose another."
    )
    refused(ValueError, message, path, {"w": KERNEL})


def test_safetensors_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.delitem(sys.modules, "safetensors.numpy")
    message = (
        "'safetensors' is not installed. This feature of keras-residual needs it: pip install 'keras-residual[hub]'"
    )
    refused(ImportError, message, tmp_path / "w.safetensors", {"w": KERNEL})
