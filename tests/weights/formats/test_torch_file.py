"""A checkpoint of PyTorch becomes arrays without PyTorch, and runs nothing."""

import argparse
import collections
import datetime
import io
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from keras_residual._errors import CheckpointError
from keras_residual.weights.formats.torch_file import read_torch_file as read
from keras_residual.weights.formats.values import WIDTHS
from torch_files import Call, Reference, bare, pickled, storage, tensor, zipped

pytestmark = pytest.mark.any_backend

KERNEL = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
GET_AGAIN = "Delete it and get it again."
DENSE = "Save it as a dense tensor of real numbers that has all its values."
WAY_OUT = (
    "and loading such an object can run any code, so nothing was loaded. Where you trust the file, load it once "
    "with torch.load(path, weights_only=False) and save the state dict alone: "
    "torch.save(model.state_dict(), path)."
)


def refused(path, message):
    with pytest.raises(CheckpointError, match=f"^{re.escape(f'Checkpoint {str(path)!r}: {message}')}$"):
        read(path)


def refused_as_damaged(path, reason=".+"):
    start, end = re.escape(f"Checkpoint {str(path)!r}: the file is "), re.escape(f". {GET_AGAIN}")
    with pytest.raises(CheckpointError, match=f"^{start}(damaged|cut off){reason}{end}$") as caught:
        read(path)
    assert str(caught.value).isprintable()


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


# What is read -------------------------------------------------------------------------------------------------------


@st.composite
def strided(draw):
    """A tensor that lies in its storage in some way."""
    kind = draw(st.sampled_from(sorted(WIDTHS)))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    values = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 2 if kind == "bool" else 100, shape)
    found = torch.from_numpy(values).to(getattr(torch, kind))
    for _ in range(draw(st.integers(0, 2))):
        if found.ndim >= 1 and draw(st.booleans()):
            axis = draw(st.integers(0, found.ndim - 1))
            found = found.narrow(axis, start := draw(st.integers(0, found.shape[axis])), found.shape[axis] - start)
        if found.ndim >= 2 and draw(st.booleans()):
            found = found.transpose(0, draw(st.integers(1, found.ndim - 1)))
        if draw(st.booleans()):
            found = found[None]
    return torch.nn.Parameter(found) if found.is_floating_point() and draw(st.booleans()) else found


@given(st.dictionaries(st.text(min_size=1, max_size=5), strided(), min_size=1, max_size=4), st.data())
def test_it_reads_what_pytorch_reads(tmp_path_factory, content, data):
    path = tmp_path_factory.mktemp("torch") / "w.pth"
    content = {f"a.{name}": value for name, value in content.items()}
    first = next(iter(content.values()))
    content |= {"a.same": first, "a.view": first.detach().reshape(-1)[1:]}
    # Types without storages of their own came after the bare pickles.
    newer = any(value.dtype in (torch.uint16, torch.uint32, torch.uint64) for value in content.values())
    torch.save(
        data.draw(st.sampled_from([content, collections.OrderedDict(content)])),
        path,
        pickle_protocol=data.draw(st.integers(2, 5)),
        _use_new_zipfile_serialization=newer or data.draw(st.booleans()),
    )
    found = read(path)
    assert list(found) == list(content)
    for name, value in content.items():
        value = value.detach()
        expected = (value.float() if value.is_floating_point() else value).numpy()
        assert (found[name].dtype, found[name].shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(found[name], expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("zipped", [True, False])
def test_floats_become_float32(save_torch, dtype, zipped):
    stored = torch.from_numpy(KERNEL).to(getattr(torch, dtype))
    found = read(save_torch({"w": stored, "t": stored.mT}, _use_new_zipfile_serialization=zipped))
    assert found["w"].dtype == np.float32
    np.testing.assert_array_equal(found["w"], stored.float().numpy())
    np.testing.assert_array_equal(found["t"], stored.mT.float().numpy())


def test_scalars_and_empty_tensors_keep_their_shape(save_torch):
    found = read(save_torch({"scalar": torch.tensor(2.5, dtype=torch.float64), "none": torch.zeros((0, 3))}))
    assert (found["scalar"].shape, found["none"].shape) == ((), (0, 3))
    assert found["scalar"] == 2.5


def test_a_file_without_checksums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.from_numpy(KERNEL)}, tmp_path / "w.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(tmp_path / "w.pth") as archive:
        assert {member.CRC for member in archive.infolist()} == {0}
    np.testing.assert_array_equal(read(tmp_path / "w.pth")["w"], KERNEL)


def test_a_file_of_a_big_endian_machine_is_read(tmp_path):
    content = struct.pack(">6f", *range(6))
    path = zipped(tmp_path / "w.pth", pickled({"w": tensor()}), {"0": content}, byteorder=b"big")
    np.testing.assert_array_equal(read(path)["w"], np.arange(6).reshape(2, 3))


def test_a_view_of_a_storage_in_an_old_file_is_read(tmp_path):
    content = {"w": tensor(storage(6, view=("1", 2, 3)), 1, (2,), (1,)), "all": tensor(storage(6, view=None))}
    values = struct.pack("<q6f", 6, *range(6))
    path = bare(tmp_path / "w.pth", pickled(content), pickled(["0"]), storages=values)
    np.testing.assert_array_equal(read(path)["w"], [3, 4])
    np.testing.assert_array_equal(read(path)["all"], np.arange(6).reshape(2, 3))


def test_a_tensor_with_attributes_is_read(save_torch):
    named = torch.from_numpy(KERNEL)
    named.note = "of mine"
    np.testing.assert_array_equal(read(save_torch({"w": named}))["w"], KERNEL)


def test_what_is_beside_the_weights_does_no_harm(save_torch):
    beside = {
        "args": argparse.Namespace(lr=0.1, epochs=3, out=Path("runs")),
        "started": datetime.datetime(2020, 1, 1),
        "loss": np.float64(0.3),
        "curve": np.arange(3.0),
        "seen": {1, 2},
        "frozen": frozenset("ab"),
        "raw": b"bytes",
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "counts": collections.Counter("aab"),
        "groups": collections.defaultdict(list, a=[1]),
        "number": 3 + 4j,
        "sparse": torch.eye(3).to_sparse(),
        ("a", 1): 2,
        2.5: 3,
        None: 4,
    }
    for protocol in (2, 4, 5):
        found = read(save_torch({**beside, "model": {"w": torch.ones(1)}}, pickle_protocol=protocol))
        assert list(found) == ["w"]


def test_weights_are_read_and_the_optimizer_is_not(save_torch):
    path = save_torch({"model": {"w": torch.ones(999)}, "optimizer": {"state": {0: {"m": torch.full((999,), 2.0)}}}})
    content = bytearray(path.read_bytes())
    content[content.index(struct.pack("<3f", 2, 2, 2))] ^= 1
    path.write_bytes(content)
    np.testing.assert_array_equal(read(path)["w"], np.ones(999))


def test_values_that_are_shared_are_in_memory_once(save_torch):
    table = torch.ones(1000, dtype=torch.float16)
    found = read(save_torch({"encoder.w": table, "decoder.w": table.reshape(10, 100)}))
    assert np.shares_memory(found["encoder.w"], found["decoder.w"])


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "what"),
    [
        (lambda: torch.ones(3, dtype=torch.complex64), "is of the type ComplexFloat"),
        (lambda: torch.ones(2).to(torch.float8_e4m3fn), "is of the type float8_e4m3fn"),
        (lambda: torch.eye(3).to_sparse(), "is a sparse tensor"),
        (lambda: torch.eye(3).to_sparse_csr(), "is a sparse tensor"),
        (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "is a quantised tensor"),
        (lambda: torch.ones(2, device="meta"), "is a tensor without values"),
        (
            lambda: torch.ones(2, dtype=torch.complex64).conj().imag,
            "is a tensor that is negated or conjugated when it is read",
        ),
        (lambda: torch.ones(1).expand(5), "has the shape (5,), but only 1 values are there"),
        (lambda: torch.ones(6).as_strided((3, 4), (1, 1)), "has the shape (3, 4), but only 6 values are there"),
    ],
    ids=["complex", "float8", "coo", "csr", "quantised", "meta", "negative", "expanded", "overlapping"],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # PyTorch's, of these sorts
def test_other_tensors_are_refused_by_name(save_torch, weights, what):
    path = save_torch({"ok": torch.ones(2), "bad\x1b": weights()})
    refused(path, rf"the tensor 'bad\x1b' {what}. {DENSE}")


def test_a_huge_tensor_of_one_value_takes_no_memory(tmp_path):
    path = zipped(tmp_path / "w.pth", pickled({"w": tensor(storage(1), 0, (5 * 10**8,), (0,))}), {"0": bytes(4)})
    refused(path, f"the tensor 'w' has the shape (500000000,), but only 1 values are there. {DENSE}")


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(1, (2, 3), (3, 1)), (0, (2, 3), (4, 1)), (6, (1,), (1,)), (2**60, (1,), (1,)), (0, (2,), (2**61,)), (7, (), ())],
)
def test_a_tensor_that_leaves_its_storage_is_refused(tmp_path, offset, shape, strides):
    path = zipped(tmp_path / "w.pth", pickled({"w": tensor(None, offset, shape, strides)}))
    refused(path, f"the tensor 'w' has the shape {shape}, but only 6 values are there. {DENSE}")


@pytest.mark.parametrize("size", [5, 7, 0, 10**15])
def test_a_storage_of_another_size_than_it_claims_is_refused(tmp_path, size):
    path = zipped(tmp_path / "w.pth", pickled({"w": tensor(storage(size), 0, (1,), (1,))}))
    refused_as_damaged(path, re.escape(f" ('archive/data/0' has 24 bytes instead of {4 * size})"))


@pytest.mark.parametrize(
    "content",
    [
        tensor(storage(-1)),
        tensor(storage(2.0)),
        tensor(storage(True)),
        tensor(storage(2**70)),
        tensor(storage(kind="FloatStorage")),
        tensor(storage(kind=torch.float32)),
        tensor(storage(key=None)),
        tensor(storage(key=("0",))),
        tensor(storage(view=("1", 0, 2**70))),
        tensor(storage(view=("1",))),
        tensor(storage(view=3)),
        tensor(Reference("module", Innocent)),
        tensor(Reference()),
        tensor(Reference("storage")),
        tensor("no storage"),
        tensor([1.0] * 6),
        tensor(None, -1),
        tensor(None, 0, (2, 3), (3,)),
        tensor(None, 0, (2, 3), (3, -1)),
        tensor(None, 0, (2, True), (3, 1)),
        tensor(None, 0, 3, 1),
        tensor(None, 0, (1,) * 99, (0,) * 99),
        Call(torch._utils._rebuild_tensor_v2, 1),
        Call(torch._utils._rebuild_parameter),
        Call(torch._tensor._rebuild_from_type_v2, torch._tensor._rebuild_from_type_v2, torch.Tensor, ()),
    ],
)
def test_a_tensor_that_makes_no_sense_is_refused(tmp_path, content):
    try:
        path = zipped(tmp_path / "w.pth", pickled({"w": content}))
    except pickle.PicklingError:
        pytest.skip("not to be pickled")
    with pytest.raises(CheckpointError) as caught:
        read(path)
    assert str(caught.value).isprintable()


def test_one_key_for_two_storages_is_refused(tmp_path):
    content = {"a": tensor(), "b": tensor(storage(3, kind=torch.DoubleStorage), 0, (3,), (1,))}
    refused_as_damaged(zipped(tmp_path / "w.pth", pickled(content)), re.escape(" (two storages have one key)"))


def looped():
    content = {"w": tensor()}
    content["model"] = content["state_dict"] = content["ema"] = content
    return content


def in_a_list(levels):
    content = tensor()
    for _ in range(levels):
        content = [content]
    return {"model": content}


def test_a_file_that_holds_itself_is_read(tmp_path):
    assert list(read(zipped(tmp_path / "w.pth", pickled(looped())))) == ["w"]
    empty = {}
    empty |= dict.fromkeys(["model", "state_dict", "model_state", "net", "ema"], empty)
    refused(
        zipped(tmp_path / "w.pth", pickled(empty)),
        "it holds no tensor. Its keys: model, state_dict, model_state, net, ema. "
        "Save the state dict of the model: torch.save(model.state_dict(), path).",
    )


def many(operations, number, before=b"\x80\x02", after=b"."):
    return before + operations * number + after


@pytest.mark.parametrize(
    "content",
    [
        many(b"]", 100_000),
        many(b"\x85", 100_000, b"\x80\x02)"),
        # A tuple of tuples as a key, whose hash would overflow the stack.
        many(b"\x85", 200_000, b"\x80\x02})", b"K\x01s."),
        many(b"\x85", 200_000, b"\x80\x04\x8f()", b"\x90."),
        many(b"\x85", 200_000, b"\x80\x04()", b"\x91."),
        # A place in the memo for which Python's own reader would take 64 GB.
        b"\x80\x02]r\xff\xff\xff\xff.",
        b"\x80\x02]j\xff\xff\xff\xff.",
        # Lengths that the file does not have.
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
        b"\x80\x02X\xff\xff\xff\xffabc.",
        b"\x80\x02\x8b\xff\xff\xff\x7fabc.",
        b"\x80\x02I" + b"9" * 10_000 + b"\n.",
        b"\x80\x02L" + b"9" * 10_000 + b"L\n.",
        b"\x80\x02S'\\x4'\n.",
        b"\x80\x02V\\ud8\n.",
        b"\x80\x02G\xff.",
        b"\x80\x02c\n\n.",
        b"\x80\x02ctorch\n",
        b"\x80\x02ccollections\nOrderedDict\n)R",
        b"\x80\x02ccollections\nOrderedDict\n]R.",
        b"\x80\x02ccollections\nOrderedDict\n]K\x01a\x85R.",
        b"\x80\x02)R.",
        b"\x80\x02K\x01K\x02s.",
        b"\x80\x02K\x01K\x02a.",
        b"\x80\x02}(K\x01u.",
        b"\x80\x02t.",
        b"\x80\x02K\x01\x87.",
        b"\x80\x02K\x01Q.",
        b"\x80\x02P0\n.",
        b"\x80\x02(i__main__\nX\n.",
        b"\x80\x02\x82\x01.",
        b"\x80\x05\x97.",
        b"\x80\x02e.",
        b"\x80\x02q\x00.",
        b"\x80\x02.",
        b"\x80\x02",
        b"",
        b"\xff",
        b"\x80\x04\x93.",
        b"\x80\x04KKKK\x93.",
        b"\x80\x04\x8c\x05torch]\x93.",
    ],
)
@pytest.mark.parametrize("is_zip", [True, False])
def test_a_pickle_that_no_program_writes_is_refused(tmp_path, content, is_zip):
    path = tmp_path / "w.pth"
    if is_zip:
        zipped(path, content)
    else:
        bare(path, content, pickled([]))
    with pytest.raises(CheckpointError) as caught:
        read(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_a_pickle_of_too_many_steps_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_residual._backend.torch_pickle._MOST_STEPS", 1000)
    path = zipped(tmp_path / "w.pth", many(b"0]", 1000, b"\x80\x02]"))
    refused(path, f"its pickle takes more than 1000 steps. {GET_AGAIN}")


@pytest.mark.parametrize("members", [[], ["a/data.pkl", "b/data.pkl"]])
def test_a_zip_file_without_one_pickle_is_refused(tmp_path, members):
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        for name in [*members, "x"]:
            archive.writestr(name, pickled({}))
    refused_as_damaged(tmp_path / "w.pth", re.escape(f" (it has {len(members)} data.pkl)"))


def test_a_storage_that_is_not_there_is_refused(tmp_path):
    refused(zipped(tmp_path / "w.pth", pickled({"w": tensor()}), {}), f"it has no 'archive/data/0'. {GET_AGAIN}")


def test_an_unknown_order_of_bytes_is_refused(tmp_path):
    path = zipped(tmp_path / "w.pth", pickled({"w": tensor()}), byteorder=b"middle")
    refused_as_damaged(path, re.escape(" (its order of bytes is b'middle')"))


@pytest.mark.parametrize("keep", [1, 30, 200, -1000, -1])
def test_bare_pickle_cut_off(save_torch, keep):
    path = save_torch({"w": torch.ones(999)}, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:keep])
    refused_as_damaged(path)


@pytest.mark.parametrize(
    "storages",
    [
        struct.pack("<q", 2**62) + bytes(24),
        struct.pack("<q", 7) + bytes(28),
        struct.pack("<q", -1) + bytes(24),
        struct.pack("<q", 6) + bytes(23),
        b"",
    ],
)
def test_a_bare_file_whose_storages_are_not_what_the_pickle_says(tmp_path, storages):
    path = bare(tmp_path / "w.pth", pickled({"w": tensor()}), pickled(["0"]), storages=storages)
    refused_as_damaged(path)


@pytest.mark.parametrize("keys", [[], ["1"], ["0", "0"], None, [["0"]], {"0": 1}])
def test_a_bare_file_with_other_keys(tmp_path, keys):
    storages = (struct.pack("<q", 6) + bytes(24)) * 2
    refused_as_damaged(bare(tmp_path / "w.pth", pickled({"w": tensor()}), pickled(keys), storages=storages))


@pytest.mark.parametrize("content", [b"\x80\x02N.", b"\x80\x02N." * 9, pickle.dumps({"w": [1]})])
def test_a_plain_pickle_is_no_file_of_torch_save(tmp_path, content):
    (tmp_path / "w.pth").write_bytes(content)
    refused(tmp_path / "w.pth", f"the file is damaged, or torch.save did not write it. {GET_AGAIN}")


def test_zip_damaged(save_torch):
    path = save_torch({"w": torch.ones(999)})
    content = bytearray(path.read_bytes())
    content[40:200] = b"\xff" * 160
    path.write_bytes(content)
    refused_as_damaged(path)


def test_each_flipped_bit_of_the_values_is_seen(save_torch):
    path = save_torch({"w": torch.ones(999)})
    intact = path.read_bytes()
    start = intact.index(np.ones(999, "float32").tobytes())
    for place in range(start, start + 4 * 999, 100):
        content = bytearray(intact)
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        refused_as_damaged(path, r" \(Bad CRC-32 for file 'weights/data/0'\)")


# Code ---------------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "function",
    [eval, exec, print, getattr, __import__, open, os.system, os.execv, subprocess.run, sys.exit, io.open, pickle.loads,
     torch.load, torch.hub.load, torch.save, np.load, np.fromfile, collections.namedtuple, torch._utils._element_size,
     torch.jit.load, torch.storage._load_from_bytes, torch.tensor, torch.from_file],
    ids=lambda function: f"{function.__module__}.{function.__qualname__}",
)  # fmt: skip
@pytest.mark.parametrize("protocol", [2, 4])
def test_no_other_name_passes(tmp_path, function, protocol):
    path = zipped(tmp_path / "w.pth", pickled({"w": tensor(), "x": Call(function, "x")}, protocol))
    with pytest.raises(CheckpointError, match=r"it holds the Python object \S+, and loading such an object can run"):
        read(path)


def test_an_object_is_named(save_torch):
    path = save_torch({"w": torch.ones(1), "net": Innocent()})
    refused(path, f"it holds the Python object {Innocent.__module__}.Innocent, {WAY_OUT}")
