"""Hostile files of weights: refused in one line, or read for what they are, and never more than that.

Valid files of each format are damaged by seeds, and others are made by hand: each attack on such readers that is known,
and each that was found here.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import torch
from keras.src.legacy.saving import legacy_h5_format
from safetensors.numpy import save

from fake_hub import COMMIT
from hostile.harness import Case, Expected, assert_harmless, attack, mutations, read_intact, share
from hostile.weight_readers import ABSOLUTE
from torch_files import Call, bare, pickled, storage, tensor, zipped

pytestmark = [pytest.mark.any_backend, pytest.mark.hostile]

CHECKPOINT, KERAS, HUB = (f"hostile.weight_readers:{name}" for name in ("checkpoint", "keras_model", "hub"))
WEIGHTS = {"conv1.weight": np.arange(48.0).reshape(4, 3, 2, 2), "bn1.bias": np.ones(4, "float16")}


def of_torch(*, zipped: bool) -> bytes:
    file = io.BytesIO()
    content = {"state_dict": {name: torch.from_numpy(array) for name, array in WEIGHTS.items()}, "epoch": 3}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def npz(*, compressed: bool) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **WEIGHTS)
    return file.getvalue()


def hdf5(form: Any) -> bytes:
    """Weights as `keras.applications` has them, of some layers."""
    file = io.BytesIO()
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv1_conv")(inputs)
    x = keras.layers.BatchNormalization(name="conv1_bn")(x)
    x = keras.layers.Dense(3, name="predictions")(keras.layers.GlobalAveragePooling2D()(x))
    with h5py.File(file, "w", libver=form) as written:
        legacy_h5_format.save_weights_to_hdf5_group(written, keras.Model(inputs, x))
    return file.getvalue()


def keras_file(folder: Path) -> bytes:
    x = inputs = keras.Input((4,))
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(3, name="dense")(x))
    keras.Model(inputs, keras.layers.Dense(2, name="head")(x)).save(folder / "model.keras")
    return (folder / "model.keras").read_bytes()


def damaged(reader: str, intact: Sequence[tuple[bytes, str, Expected]], number: int) -> Iterator[Case]:
    """Yields damaged copies of intact files: contents with names and what is expected."""
    originals = read_intact(reader, [(content, file) for content, file, _ in intact])
    for seed, ((content, file, expected), original) in enumerate(zip(intact, originals, strict=True)):
        for what, changed in mutations(content, seed, number):
            if changed != content:
                yield Case(what, changed, expected, file, original)


# By hand -------------------------------------------------------------------------------------------------------------


def pth(name: str, content: Any, expected: Expected = "refused", **arguments: Any) -> Case:
    """A zip file of PyTorch with this pickle, or this content."""
    data = content if isinstance(content, bytes) else pickled(content)
    return Case(name, lambda path: zipped(path, data, **arguments), expected, "w.pth")


def sparse() -> Call:
    """Indices beyond the shape, which PyTorch adds to an address."""
    indices = tensor(storage(1, kind=torch.LongStorage, key="i"), 0, (1, 1), (1, 1))
    values = tensor(storage(1, key="v"), 0, (1,), (1,))
    return Call(torch._utils._rebuild_sparse_tensor, torch.sparse_coo, (indices, values, (4,), True))


def quantised() -> Call:
    scheme = (torch.per_tensor_affine, 0.1, 0)
    of = storage(24, kind=torch.QInt8Storage)
    return Call(torch._utils._rebuild_qtensor, of, 0, (2,), (2**40,), scheme, False, {})


def many(operation: bytes, number: int, *, before: bytes = b"\x80\x02", after: bytes = b".") -> bytes:
    return before + operation * number + after


def itself() -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key in ("model", "state_dict", "net", "module", "ema", "weights", "params"):
        content[key] = content
    return content


def of_pytorch() -> Iterator[Case]:
    yield pth("a sparse tensor out of bounds", {"w": sparse()})
    yield pth("a quantised tensor with huge strides", {"w": quantised()})
    yield pth("one value as 5e8", {"w": tensor(storage(1), 0, (5 * 10**8,), (0,))}, storages={"0": bytes(4)})
    views = {f"w{n}": tensor(storage(6), 0, (6,), (1,)) for n in range(50_000)}
    yield pth("a storage of some values in 50,000 tensors", views, "any")
    half = {f"w{n}": tensor(storage(10**6, kind=torch.HalfStorage), 0, (10**6,), (1,)) for n in range(1000)}
    yield pth("2 MB of halves in 1,000 tensors", half, "any", storages={"0": bytes(2 * 10**6)})
    yield pth("a storage that is larger than its record", {"w": tensor(storage(10**12), 0, (1,), (1,))})
    yield pth("items of a list", b"\x80\x02]K\x01K\x02s.")
    yield pth("items of a tensor", pickled({"w": tensor()})[:-2] + b"K\x01K\x02ss.")
    yield pth("a place in the memo beyond memory", b"\x80\x02]r\xff\xff\xff\xff.")
    for name, operations in {
        "lists": b"]",
        "dictionaries": b"}",
        "sets": b"\x8f",
        "marks": b"(",
        "memo": b"]\x94",
    }.items():
        yield pth(f"many {name}", many(operations, 4_500_000 // len(operations)))
    yield pth("a tuple of tuples as a key", many(b"\x85", 1_000_000, before=b"\x80\x02})", after=b"K\x01s."))
    yield pth("a tuple of tuples in a set", many(b"\x85", 1_000_000, before=b"\x80\x04\x8f()", after=b"\x90."))
    yield pth("lists in lists", many(b"a", 1_000_000, before=b"\x80\x02" + b"]" * 1_000_001))
    yield pth(
        "dictionaries in dictionaries", many(b"s", 600_000, before=b"\x80\x02" + b"}X\x05\0\0\0model" * 600_000 + b"N")
    )
    yield pth("a file that holds itself", itself())
    yield pth("a text longer than the file", b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.")
    yield pth("an array of bytes longer than the file", b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7fabc.")
    yield pth("a number of 9 MB", b"\x80\x02\x8b" + struct.pack("<i", 9 * 10**6) + b"\x01" * 9 * 10**6 + b".", "any")
    alike = b"".join(pickle.dumps(n * (2**61 - 1), 2)[2:-1] + b"N" for n in range(100_000))
    yield pth("numbers whose hashes are all the same", b"\x80\x02}(" + alike + b"u.")
    yield pth("names that a terminal obeys", {"\x1b]0;x\x07": tensor(None, 0, (9,), (9,))})
    yield pth("a name of 9 MB", {"x" * 9 * 10**6: tensor(None, 0, (9,), (9,))})
    for function in (os.system, eval, torch.load, pickle.loads, torch.storage._load_from_bytes):
        yield pth(f"a call of {function.__name__}", {"w": tensor(), "x": Call(function, "x")})
    yield Case("a call in a bare file", lambda path: bare(path, pickled(Call(os.system, "x"))), "refused", "w.pth")
    keys = lambda path: bare(path, pickled({"w": tensor()}), pickled(["0"]), storages=struct.pack("<q", 2**62))  # noqa: E731
    yield Case("a bare file of 4e18 values", keys, "refused", "w.pth")
    yield pth("a pickle that grows", many(b"0]", 400_000), "refused")


def zipped_zeros(
    path: Path, names: list[str], size: int, head: bytes = b"", method: int = zipfile.ZIP_DEFLATED
) -> None:
    with zipfile.ZipFile(path, "w", method, compresslevel=9) as archive:
        for name in names:
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(head)
                for _ in range(size // 10_000_000):
                    file.write(bytes(10_000_000))


def npy_head(shape: Any, kind: str = "<f4") -> bytes:
    text = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def of_numpy() -> Iterator[Case]:
    def case(name: str, content: bytes, method: int = zipfile.ZIP_STORED) -> Case:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method) as archive:
            archive.writestr("w.npy", content)
        return Case(name, file.getvalue(), "refused", "w.npz")

    one = npy_head((3 * 10**8,))
    ten, passing = npy_head((5 * 10**7,), "<f2"), npy_head((6 * 10**7,), "<f2")
    names = [f"{n}.npy" for n in range(10)]
    yield Case("1.2 GB of zeros", lambda path: zipped_zeros(path, ["w.npy"], 1_200_000_000, one), "refused", "w.npz")
    yield Case("ten arrays of 100 MB", lambda path: zipped_zeros(path, names, 10**8, ten), "refused", "w.npz")
    yield Case("what just passes", lambda path: zipped_zeros(path, ["w.npy"], 12 * 10**7, passing), "any", "w.npz")
    for shape in ((10**13,), (10**21,), (2**62, 4), (0, 10**21), (-1,), (True,), (1.5,), "(", (1,) * 100):
        yield case(f"the shape {shape}", npy_head(shape) + bytes(4))
    for kind in ("O", "<U5", "V8", "M8[s]", "<c8", "|S5", "f4,i4", "<f16", "x" * 5000):
        yield case(f"the type {kind[:20]}", npy_head((1,), kind) + bytes(16 if kind != "<f16" else 15))
    for text in (b"(" * 60_000, b"-" * 60_000 + b"1", b"{" * 60_000, b"[" * 9000, b"'" + b"\\" * 9000, b"\xff" * 100):
        yield case(f"a head of {text[:5]!r}", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        yield case(f"the method {method}", npy_head((4,)) + bytes(16), method)
    encrypted = bytearray(npz(compressed=False))
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1
    yield Case("an encrypted array", bytes(encrypted), "refused", "w.npz")
    yield case("no array", b"")
    yield Case("an empty archive", b"PK\x05\x06" + bytes(18), "refused", "w.npz")


def safetensors_of(header: Any, content: bytes = bytes(8), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + content


def of_safetensors() -> Iterator[Case]:
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    headers: dict[str, Any] = {
        "a huge shape": {"w": {**entry, "shape": [10**6, 10**6, 10**6]}},
        "a shape beyond all numbers": {"w": {**entry, "shape": [2**61, 8]}},
        "tensors over each other": {"w": entry, "v": entry},
        "a hole": {"w": {**entry, "shape": [1], "data_offsets": [4, 8]}},
        "offsets backwards": {"w": {**entry, "data_offsets": [8, 0]}},
        "negative offsets": {"w": {**entry, "data_offsets": [-8, 0]}},
        "offsets beyond the file": {"w": {**entry, "data_offsets": [0, 2**60]}},
        "a name twice": b'{"w":' + json.dumps(entry).encode() + b',"w":' + json.dumps(entry).encode() + b"}",
        "objects in objects": b'{"w":' * 1_000_000,
        "lists in lists": b'{"w":' + b"[" * 4_000_000,
        "a number of 9 MB": b'{"w":' + b"9" * 9_000_000 + b"}",
        "names": {f"w{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(100_000)},
        "no entry": {"w": []},
        "no object": b"{]",
        "a name that a terminal obeys": {"\x1b[31m": {**entry, "dtype": "F4"}},
        "a name of 9 MB": {"x" * 9_000_000: {**entry, "shape": [3]}},
        "zeros behind the header": json.dumps({"w": entry}).encode() + b"\0\0\0",
    }  # fmt: skip
    for name, header in headers.items():
        yield Case(name, safetensors_of(header), "refused", "w.safetensors")
    for kind in ("F4", "F6_E2M3", "F6_E3M2", "F8_E4M3", "F8_E5M2", "F8_E8M0", "C64", "BF17", "", "f32"):
        yield Case(f"the type {kind}", safetensors_of({"w": {**entry, "dtype": kind}}), "refused", "w.safetensors")
    for length in (0, 1, 2**32, 2**63, 2**64 - 1, 100_000_000, 7):
        yield Case(f"a header of {length}", safetensors_of({"w": entry}, length=length), "refused", "w.safetensors")


def of_hdf5(folder: Path) -> Iterator[Case]:
    secret = folder / "secret"
    secret.write_bytes(bytes(range(256)) * 100)
    with h5py.File(folder / "other.h5", "w") as other:
        other["w"] = np.ones(100)

    def case(name: str, make: Callable[[Any], None], form: Any = None) -> Case:
        file = io.BytesIO()
        with h5py.File(file, "w", libver=form) as written:
            written.attrs["layer_names"] = [b"predictions"]
            group = written.create_group("predictions")
            group.attrs["weight_names"] = [b"bias:0"]
            make(group)
        return Case(f"{name}, {form}", file.getvalue(), "refused", "w.h5")

    virtual = h5py.VirtualLayout((100,), "f8")
    virtual[:] = h5py.VirtualSource(str(folder / "other.h5"), "w", (100,))
    elsewhere, link = [(str(secret), 0, 100)], h5py.ExternalLink(str(folder / "other.h5"), "/w")
    zeros = np.zeros(10**7)
    for form in (None, "latest"):
        yield case("values of a file", lambda g: g.create_dataset("bias:0", (25,), "f4", external=elsewhere), form)
        yield case("a link out", lambda g: g.__setitem__("bias:0", link), form)
        yield case("a link", lambda g: g.__setitem__("bias:0", h5py.SoftLink("/predictions/bias:0")), form)
        yield case("virtual values", lambda g: g.create_virtual_dataset("bias:0", virtual), form)
        yield case("nothing written", lambda g: g.create_dataset("bias:0", (10**9,), "f4"), form)
        yield case("no chunk written", lambda g: g.create_dataset("bias:0", (10**9,), "f4", chunks=(10**6,)), form)
        yield case("zipped zeros", lambda g: g.create_dataset("bias:0", data=zeros, compression="gzip"), form)
        yield case("a loop", lambda g: g.__setitem__("bias:0", g), form)
        yield case("a loop above", lambda g: g.__setitem__("bias:0", g.parent), form)
        yield case("texts", lambda g: g.__setitem__("bias:0", ["a", "b"]), form)
        yield case("nothing", lambda g: None, form)
        yield case("a name that a terminal obeys", lambda g: g.attrs.__setitem__("weight_names", [b"\x1b[31m"]), form)

    def norm(group: Any) -> None:
        file = group.parent
        file.attrs["layer_names"] = [b"conv1_bn"]
        made = file.create_group("conv1_bn")
        made.attrs["weight_names"] = [b"moving_mean:0"]
        made["moving_mean:0"] = np.ones(4, "f4")

    yield case("a norm without a variance", norm)


def special() -> Iterator[Case]:
    def link(target: str) -> Callable[[Path], None]:
        return lambda path: path.symlink_to(target)

    yield Case("a pipe", os.mkfifo, "refused", "w.pth")
    yield Case("zeros without end", link("/dev/zero"), "refused", "w.pth")
    yield Case("nothing at all", link("/dev/null"), "refused", "w.pth")
    yield Case("a folder", Path.mkdir, "refused", "w.pth")
    yield Case("a link to itself", link("w.pth"), "refused", "w.pth")
    yield Case("a link to nothing", link("nothing"), "refused", "w.pth")

    def holes(path: Path) -> None:
        path.touch()
        os.truncate(path, 10**12)

    heads = {"pth": b"\x80\x02", "safetensors": b"\xff" * 7 + b"\0{", "npz": b"PK\3\4", "h5": b"\x89HDF\r\n\x1a\n"}
    for suffix, head in heads.items():
        file = f"w.{suffix}"
        yield Case("an empty file", b"", "refused", file)
        yield Case("a terabyte of holes", holes, "refused", file)
        yield Case("zeros behind a head", head + bytes(9_000_000), "refused", file)
        yield Case("ones behind a head", head + b"\xff" * 9_000_000, "refused", file)


def test_checkpoints(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    intact: list[tuple[bytes, str, Expected]] = [
        (of_torch(zipped=True), "w.pth", "same or refused"),
        (of_torch(zipped=False), "w.th", "any"),
        (npz(compressed=False), "w.npz", "same or refused"),
        (npz(compressed=True), "w.npz", "same or refused"),
        (save(WEIGHTS), "w.safetensors", "any"),
        (hdf5("earliest"), "w.h5", "any"),
        (hdf5("latest"), "w.h5", "any"),
    ]
    cases = [*of_pytorch(), *of_numpy(), *of_safetensors(), *of_hdf5(tmp_path), *special()]
    check(CHECKPOINT, [*cases, *damaged(CHECKPOINT, intact, 60)], request)


def check(reader: str, cases: list[Case], request: pytest.FixtureRequest) -> None:
    outcomes = attack(reader, share(cases, request.config))
    found = assert_harmless(outcomes)
    print(f"{reader}: {len(outcomes)} inputs, {dict(found)}")
    assert found["plain"] > len(outcomes) / 2


# Models --------------------------------------------------------------------------------------------------------------


def with_members(content: bytes, **changes: bytes | Callable[[bytes], bytes] | None) -> bytes:
    """Returns a zip file with other members, by their names with `__` for `/` and `_` for `.`."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            change = changes.pop(name.replace(".", "_"), old.read(name))
            if change is not None:
                new.writestr(name, change(old.read(name)) if callable(change) else change)
        for name, change in changes.items():
            if isinstance(change, bytes):
                new.writestr(name, change)
    return file.getvalue()


def models(content: bytes, folder: Path) -> Iterator[Case]:
    def case(name: str, **changes: Any) -> Case:
        return Case(name, with_members(content, **changes), "refused", "model.keras")

    def config(change: Callable[[Any], Any]) -> Callable[[bytes], bytes]:
        return lambda old: json.dumps(change(json.loads(old))).encode()

    def layer(number: int, **entries: Any) -> Callable[[bytes], bytes]:
        def change(found: Any) -> Any:
            found["config"]["layers"][number] |= entries
            return found

        return config(change)

    def units(number: int) -> Callable[[bytes], bytes]:
        def change(found: Any) -> Any:
            found["config"]["layers"][-1]["config"]["units"] = number
            return found

        return config(change)

    yield case("a layer of a billion units", config_json=units(10**9))
    yield case("a layer of 1e30 units", config_json=units(10**30))
    yield case("a layer of -1 units", config_json=units(-1))
    for full in ("os.system", "builtins.eval", "keras.config.enable_unsafe_deserialization", "subprocess.Popen",
                 "keras.utils.get_file", "keras.src.saving.saving_lib.load_model"):  # fmt: skip
        module, _, name = full.rpartition(".")
        named = {"module": module, "class_name": name, "registered_name": name}
        yield case(full, config_json=layer(1, **named))
        yield case(f"{full} as the model", config_json=config(lambda found, named=named: {**found, **named}))
    code = {"class_name": "__lambda__", "config": {"value": ["4wEAAAA=", None, None]}}
    yield case("code", config_json=layer(1, class_name="Lambda", module="keras.layers", registered_name=None,
                                         config={"name": "x", "function": code}))  # fmt: skip
    yield case("objects in objects", config_json=b'{"a":' * 1_000_000)
    yield case("no object", config_json=b"[]")
    yield case("no configuration", config_json=None)
    yield case("no weights", model_weights_h5=None)
    yield case("empty weights", model_weights_h5=b"")
    yield case("weights of another file", model_weights_h5=hdf5("earliest"))
    for name in ("/etc/x", "../x", "assets/../../x", "x", "model.weights.npz", "assets", "assets\\..\\x"):
        yield case(f"the member {name}", **{name: b"x"})
    with h5py.File(folder / "other.h5", "w") as other:
        other["0"] = np.ones((4, 3), "f4")
    elsewhere = [(str(folder / "other.h5"), 0, 48)]
    for name, make in {
        "values of another file": lambda g: g.create_dataset("0", (4, 3), "f4", external=elsewhere),
        "a link out": lambda g: g.__setitem__("0", h5py.ExternalLink(str(folder / "other.h5"), "/0")),
        "a link": lambda g: g.__setitem__("0", h5py.SoftLink("/layers/head/vars/0")),
        "nothing written": lambda g: g.create_dataset("0", (10**5, 10**5), "f4"),
        "no chunk written": lambda g: g.create_dataset("0", (10**5, 10**5), "f4", chunks=(1000, 1000)),
        "compressed zeros": lambda g: g.create_dataset("0", data=np.zeros((3000, 3000)), compression="gzip"),
    }.items():  # fmt: skip

        def changed(old: bytes, make: Any = make) -> bytes:
            file = io.BytesIO(old)
            with h5py.File(file, "r+") as written:
                variables = written["layers/dense/vars"]
                del variables["0"]
                make(variables)
            return file.getvalue()

        yield case(name, model_weights_h5=changed)

    def zeros(path: Path) -> None:
        zipped_zeros(path, ["config.json", "model.weights.h5"], 600_000_000)

    yield Case("zeros", zeros, "refused", "model.keras")


def test_models(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    content = keras_file(tmp_path)
    cases = list(models(content, tmp_path))
    cases += damaged(KERAS, [(content, "model.keras", "same or refused")], 60)
    # The weights inside have no checksum of their own, and the archive around them is intact.
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        weights = archive.read("model.weights.h5")
    for what, changed in mutations(weights, 12, 60):
        cases.append(Case(f"weights: {what}", with_members(content, model_weights_h5=changed), "any", "model.keras"))
    check(KERAS, cases, request)


# The Hub -------------------------------------------------------------------------------------------------------------


def answers(name: str, expected: Expected = "refused", files: dict[str, bytes] | None = None, **entries: Any) -> Case:
    contents = {"model.safetensors": save(WEIGHTS), "config.json": b"{}"} | (files or {})
    sent = {file: content.hex() for file, content in entries.pop("sent", {}).items()}
    told = {"files": {file: content.hex() for file, content in contents.items()}, "sent": sent, **entries}
    return Case(name, json.dumps(told).encode(), expected, "answers.json")


def of_the_hub() -> Iterator[Case]:
    paths = [
        "../../../../x",
        str(ABSOLUTE),
        "..",
        "a/b",
        "..\\x",
        "a" * 41,
        "a" * 39,
        "A" * 64,
        "%2e%2e%2fx",
        "x" * 5000,
        "~",
    ]
    for path in paths:
        yield answers(f"the hash {path[:50]}", etags={"model.safetensors": [path]})
        yield answers(f"the commit {path[:50]}", commit_header=path)
        yield answers(f"a missing file at the commit {path[:50]}", commit_header=path, files={"model.safetensors": b""})
        yield answers(f"the second hash {path[:50]}", "any", etags={"config.json": ["0" * 40, path]})
    for name in ("model.safetensors", "config.json"):
        yield answers(f"another hash of {name}", etags={name: ["0" * 64]})
        yield answers(f"another {name}", sent={name: b"x" * 500})
    for config in (b'{"a":' * 100_000, b"[]", b"\xff", b'{"a":1,"a":2}', b"9" * 10_000):
        yield answers(f"the configuration {config[:10]!r}", files={"config.json": config})
    for status in (301, 400, 404, 418, 429, 500):
        yield answers(f"the status {status}", status=status)
    yield answers("a page instead of weights", files={"model.safetensors": b"<!doctype html>" + b"x" * 1000})
    yield answers("restricted", gated=True)
    yield answers("no such commit", commits=["b" * 40, COMMIT], commit_header="b" * 40, expected="any")


def test_the_hub(request: pytest.FixtureRequest) -> None:
    check(HUB, list(of_the_hub()), request)
