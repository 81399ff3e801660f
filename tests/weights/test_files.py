"""A checkpoint file becomes a dictionary of arrays, whatever wrote it."""

import json
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
from keras_residual.weights.files import read_checkpoint

pytestmark = pytest.mark.any_backend

SHARED = Path(os.environ.get("KERAS_RESIDUAL_TEST_DATA", Path(__file__).parents[3] / "shared"))
KERNEL = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
GET_AGAIN = "Delete it and get it again."
FROM_NUMBERS = "Write it with numpy.savez, from arrays of real numbers."


def refused(path, message):
    with pytest.raises(CheckpointError, match=f"^{re.escape(f'Checkpoint {str(path)!r}: {message}')}$"):
        read_checkpoint(path)


def refused_as_damaged(path, way_out=GET_AGAIN):
    start, end = re.escape(f"Checkpoint {str(path)!r}: the file is damaged ("), re.escape(f"). {way_out}")
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
    refused(path, "the tensor 'w' is of the type 'F8_E4M3'. Save it as float32, float16 or bfloat16.")


def test_text_in_npz_is_refused(tmp_path):
    np.savez(tmp_path / "w.npz", w=np.array(["a"]))
    refused(tmp_path / "w.npz", f"'w.npy' is of the type <U1, not of numbers. {FROM_NUMBERS}")


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


HEADER = {
    "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "b": {"dtype": "U8", "shape": [], "data_offsets": [8, 9]},
}


def safetensors_of(path, header, content=bytes(9)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)
    return path


def changed(name, **entries):
    return {**HEADER, name: {**HEADER[name], **entries}}


@pytest.mark.parametrize(
    ("header", "what"),
    [
        (changed("b", data_offsets=[7, 8]), "'b' begins at byte 7 and the one before ends at 8"),
        (changed("b", data_offsets=[0, 1]), "'a' begins at byte 0 and the one before ends at 1"),
        (changed("a", shape=[3]), "'a' of the type F32 and the shape (3,) has 8 bytes"),
        (changed("a", shape=[10**13]), "'a' of the type F32 and the shape (10000000000000,) has 8 bytes"),
        (
            changed("a", shape=[2, -1]),
            "its header says of 'a': {'dtype': 'F32', 'shape': [2, -1], 'data_offsets': [0, 8]}",
        ),
        (changed("a", shape=[True, 2]), "its header says of 'a': {"),
        (changed("a", data_offsets=[8, 0]), "its header says of 'a': {"),
        (changed("a", dtype=3), "its header says of 'a': {"),
        ({**HEADER, "c\x1b": []}, r"its header says of 'c\x1b': []"),
        ({"a": HEADER["a"]}, "its tensors take 8 bytes and it has 9"),
        ({**HEADER, "c": {"dtype": "U8", "shape": [1], "data_offsets": [8, 9]}}, "'c' begins at byte 8 and the one"),
        (json.dumps(HEADER).replace('"b"', '"a"').encode(), "of its header: it has 'a' twice"),
        (b'{"a":' * 100_000, "of its header: it is nested too deep"),
        (b"{" + b"[" * 100_000, "of its header: it is no JSON ("),
        (b"{\xff}", "of its header: it is no text in UTF-8"),
    ],
)
def test_safetensors_damaged(tmp_path, header, what):
    path = safetensors_of(tmp_path / "w.safetensors", header)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"Checkpoint {str(path)!r}: the file is damaged ({what}"), message
    assert message.endswith(f"). {GET_AGAIN}")
    assert message.isprintable()


def test_an_impossible_shape_in_safetensors(tmp_path):
    path = safetensors_of(
        tmp_path / "w", changed("b", dtype="F32", shape=[2**61, 2**61, 0], data_offsets=[8, 8]), bytes(8)
    )
    what = f"the tensor 'b' has the impossible shape ({2**61}, {2**61}, 0)"
    refused(path, f"{what}. {GET_AGAIN}")


def test_npz_damaged(npz_file):
    content = bytearray(npz_file.read_bytes())
    content[40:200] = b"\xff" * 160
    npz_file.write_bytes(content)
    refused_as_damaged(npz_file, FROM_NUMBERS)


def test_complex_numbers_are_no_weights(tmp_path):
    np.savez(tmp_path / "w.npz", w=np.ones(2, "complex64"))
    refused(tmp_path / "w.npz", f"'w.npy' is of the type complex64, and weights are real numbers. {FROM_NUMBERS}")


def test_npz_without_an_array(tmp_path):
    np.savez(tmp_path / "w.npz")
    refused(tmp_path / "w.npz", f"it holds no array. {FROM_NUMBERS}")


def test_objects_in_npz(tmp_path):
    victim = tmp_path / "victim"
    np.savez(tmp_path / "w.npz", w=np.array([Payload(victim)], dtype=object))
    refused(tmp_path / "w.npz", f"'w.npy' holds Python objects, which are not read. {FROM_NUMBERS}")
    assert not victim.exists()


def test_nothing_but_numpy_is_needed(monkeypatch, safetensors_file, npz_file, save_torch):
    of_torch = save_torch({"kernel": torch.from_numpy(KERNEL)})
    bare = save_torch({"kernel": torch.from_numpy(KERNEL)}, "bare.th", _use_new_zipfile_serialization=False)
    for package in ("torch", "safetensors", "ml_dtypes"):
        monkeypatch.setitem(sys.modules, package, None)
    for path in (safetensors_file, npz_file, of_torch, bare):
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
