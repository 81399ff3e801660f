"""Files as `torch.save` writes them, but with whatever is put into them."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch


class Reference:
    """What a pickle says of a storage outside it."""

    def __init__(self, *what: Any):
        self.what = what


class Call:
    """A call in a pickle, which nobody has made."""

    def __init__(self, function: Any, *arguments: Any):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.what if isinstance(obj, Reference) else None


def pickled(content: Any, protocol: int = 2) -> bytes:
    """Returns a pickle in which `Reference` and `Call` stand for themselves."""
    file = io.BytesIO()
    _Pickler(file, protocol).dump(content)
    return file.getvalue()


def storage(size: Any = 6, *, kind: Any = torch.FloatStorage, key: Any = "0", view: Any = "none") -> Reference:
    """Returns a reference to a storage."""
    views = () if view == "none" else (view,)
    return Reference("storage", kind, key, "cpu", size, *views)


def tensor(of: Any = None, offset: Any = 0, shape: Any = (2, 3), strides: Any = (3, 1), *rest: Any) -> Call:
    """Returns the call that makes a tensor."""
    rebuild: Any = torch._utils._rebuild_tensor_v2
    return Call(rebuild, of if of is not None else storage(), offset, shape, strides, False, None, *rest)


def zipped(path: Path, pickle: bytes, storages: dict[str, bytes] | None = None, **members: bytes) -> Path:
    """Writes a zip file with this pickle, a storage `0` of 24 bytes if none are given, and other members by name."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle)
        for name, content in {"byteorder": b"little", "version": b"3\n", **members}.items():
            archive.writestr(f"archive/{name}", content)
        for key, content in ({"0": bytes(24)} if storages is None else storages).items():
            archive.writestr(f"archive/data/{key}", content)
    return path


def bare(path: Path, *pickles: bytes, storages: bytes = b"") -> Path:
    """Writes a file of before version 1.6: pickles one after the other, and what follows them."""
    head = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    path.write_bytes(b"".join([*head, *pickles]) + storages)
    return path
