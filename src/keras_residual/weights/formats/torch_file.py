"""Files of `torch.save`, read without PyTorch: zip files, and the bare pickles of before version 1.6."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from keras_residual._archive import Archive, ArchiveError
from keras_residual._backend.torch_pickle import (
    TYPES,
    ForbiddenObjectError,
    PickleError,
    Storage,
    Tensor,
    Unread,
    load,
)
from keras_residual._errors import CheckpointError, bad_checkpoint, shown
from keras_residual.weights.formats.state_dict import find_state_dict
from keras_residual.weights.formats.values import WIDTHS, from_bytes

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
ReadBytes = Callable[[Storage, int], np.ndarray]
"""Returns so many bytes of a storage, all that it has."""


def read_torch_file(path: Path, *, ema: bool = False) -> dict[str, np.ndarray]:
    """Returns the weights in a file that `torch.save` wrote; see `find_state_dict`.

    Nothing in the file is executed, and tensors that are not weights are not read.

    Raises:
        CheckpointError: If the file is damaged, names an object that could run code in another reader, or has weights
            that are no dense tensors of real numbers.
    """
    try:
        with path.open("rb") as file:
            if file.peek(2)[:2] != b"PK":
                return _read_bare(file, path, ema=ema)
        with Archive(path) as archive:
            return _read_zip(archive, path, ema=ema)
    except ForbiddenObjectError as error:
        what = f"it holds the Python object {error}, and loading such an object can run any code, so nothing was loaded"
        way_out = (
            "Where you trust the file, load it once with torch.load(path, weights_only=False) and save the state dict "
            "alone: torch.save(model.state_dict(), path)."
        )
        raise bad_checkpoint(path, what, way_out) from None
    except (ArchiveError, PickleError) as error:
        raise bad_checkpoint(path, str(error), "Delete it and get it again.") from None


def _read_zip(archive: Archive, path: Path, *, ema: bool) -> dict[str, np.ndarray]:
    pickles = [name for name in archive.names if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise ArchiveError(f"the file is damaged (it has {len(pickles)} data.pkl)")
    folder = pickles[0].removesuffix("data.pkl")
    order = bytes(archive.read(f"{folder}byteorder")) if f"{folder}byteorder" in archive.names else b"little"
    if order not in (b"little", b"big"):
        raise ArchiveError(f"the file is damaged (its order of bytes is {shown(order)})")
    content, _ = load(io.BytesIO(archive.read(pickles[0])))

    def read(storage: Storage, size: int) -> np.ndarray:
        name = f"{folder}data/{storage.key}"
        if archive.size(name) != size:
            raise ArchiveError(f"the file is damaged ({shown(name)} has {archive.size(name)} bytes instead of {size})")
        return np.frombuffer(archive.read(name), np.uint8)

    tensors = find_state_dict(content, path, ema=ema)
    return _arrays(tensors, path, read, ">" if order == b"big" else "<")


def _read_bare(file: BinaryIO, path: Path, *, ema: bool) -> dict[str, np.ndarray]:
    end = path.stat().st_size
    stream: Any = _Within(file, end)
    if load(stream)[0] != _MAGIC or load(stream)[0] != _PROTOCOL:
        raise PickleError("the file is damaged, or torch.save did not write it")
    load(stream)  # about the machine that wrote it
    content, storages = load(stream)
    keys, _ = load(stream)
    places: dict[str, tuple[int, int]] = {}
    for key in keys if isinstance(keys, list) else ():
        count = int.from_bytes(file.read(8), "little")
        storage = storages.get(str(key))
        if storage is None or storage.kind not in TYPES or storage.size != count or str(key) in places:
            raise PickleError(f"the file is damaged (the storage {shown(key)} is not what its pickle says)")
        size = count * WIDTHS[TYPES[storage.kind]]
        if file.tell() + size > end:
            raise PickleError(f"the file is cut off after {end} bytes")
        places[str(key)] = (file.tell(), size)
        file.seek(size, io.SEEK_CUR)

    def read(storage: Storage, size: int) -> np.ndarray:
        start, there = places.get(storage.key, (0, -1))
        if there != size:
            raise PickleError(f"the file is damaged (the storage {shown(storage.key)} is not there)")
        file.seek(start)
        return np.fromfile(file, np.uint8, size)

    return _arrays(find_state_dict(content, path, ema=ema), path, read, "<")


class _Within:
    """A file of which no more is asked for than it has: to read is to allocate."""

    def __init__(self, file: BinaryIO, end: int):
        self._file, self._end, self.tell = file, end, file.tell

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, self._end - self._file.tell()))

    def readline(self) -> bytes:
        return self._file.readline()


def _arrays(tensors: dict[str, Any], path: Path, read: ReadBytes, order: Literal["<", ">"]) -> dict[str, np.ndarray]:
    """Returns the values of tensors; those of one storage are read once and shared."""
    vectors: dict[tuple[str, str], np.ndarray] = {}

    def array(name: str, tensor: Tensor | Unread) -> np.ndarray:
        if isinstance(tensor, Unread):
            raise _unread(path, name, f"is {tensor.what}")
        storage, kind = tensor.storage, tensor.kind or tensor.storage.kind
        if kind not in TYPES:
            raise _unread(path, name, f"is of the type {kind.removesuffix('Storage').rpartition('.')[2]}")
        if (storage.key, kind) not in vectors:
            of_storage = TYPES.get(storage.kind, "uint8")
            size = storage.size * WIDTHS[of_storage]
            if size % WIDTHS[TYPES[kind]]:
                raise PickleError(f"the file is damaged (the storage {shown(storage.key)} ends within a value)")
            vectors[storage.key, kind] = from_bytes(read(storage, size), TYPES[kind], order)
        vector = vectors[storage.key, kind]
        if storage.view is not None:
            vector = vector[storage.view[0] : sum(storage.view)]
        claimed = math.prod(tensor.shape)
        last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
        if claimed == 0:
            return _empty(path, name, tensor.shape, vector.dtype)
        if max(claimed, last + 1) > len(vector):
            raise _unread(path, name, f"has the shape {shown(tensor.shape)}, but only {len(vector)} values are there")
        return np.lib.stride_tricks.as_strided(
            vector[tensor.offset :], tensor.shape, [stride * vector.itemsize for stride in tensor.strides]
        )

    return {name: array(name, tensor) for name, tensor in tensors.items()}


def _empty(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    try:
        return np.empty(shape, dtype)
    except ValueError:
        raise _unread(path, name, f"has the impossible shape {shown(shape)}") from None


def _unread(path: Path, name: str, what: str) -> CheckpointError:
    way_out = "Save it as a dense tensor of real numbers that has all its values."
    return bad_checkpoint(path, f"the tensor {shown(name)} {what}", way_out)
