"""HDF5 files of weights, read without the HDF5 library.

HDF5 offers values that lie in other files, links out of the file, filters that load programs, and shapes that nothing
backs; its library follows them, and on damaged files loops or crashes. This reader knows what Keras writes, that is
groups with arrays that lie in one piece, and their attributes, and refuses everything else by name.

Reference:
    HDF5 File Format Specification, version 3.0. https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from keras_residual._errors import shown
from keras_residual.weights.formats.hdf5_blocks import (
    LINK,
    LINK_INFO,
    SYMBOL_TABLE,
    UNDEFINED,
    DataBlocks,
    Hdf5Error,
    Piece,
)

_MOST_OBJECTS, _DEEPEST = 100_000, 100
# The messages that describe an object: those that are read, and those that change nothing.
_DATASPACE, _DATATYPE, _LAYOUT, _ATTRIBUTE, _ATTRIBUTE_INFO = 0x1, 0x3, 0x8, 0xC, 0x15
_READ = {_DATASPACE, _DATATYPE, _LAYOUT, _ATTRIBUTE, _ATTRIBUTE_INFO, LINK, LINK_INFO, SYMBOL_TABLE}
_NOTHING, _OLD_FILL, _FILL, _ESTIMATES, _COMMENT, _OLD_TIME, _TIME, _NODE_SIZES, _NAME_COUNT = (
    0x0, 0x4, 0x5, 0xA, 0xD, 0xE, 0x12, 0x13, 0x16,
)  # fmt: skip
_IGNORED = {_NOTHING, _OLD_FILL, _FILL, _ESTIMATES, _COMMENT, _OLD_TIME, _TIME, _NODE_SIZES, _NAME_COUNT}
_REFUSED = {0x7: "has its values in other files", 0xB: "is compressed or filtered"}
# Sign, exponent and mantissa of floats: where and how many bits, and the bias.
_FLOATS: dict[tuple[int, ...], str] = {
    (16, 10, 5, 0, 10, 15): "f2",
    (32, 23, 8, 0, 23, 127): "f4",
    (64, 52, 11, 0, 52, 1023): "f8",
}
# How h5py describes truth values, in the old and the new form.
_TRUTH = (b"FALSE\0\0\0TRUE\0\0\0\0\0\1", b"FALSE\0TRUE\0\0\1")


@dataclass(frozen=True, slots=True)
class Hdf5Group:
    """A folder in the file.

    Args:
        attributes: Texts, numbers and arrays of them, by name.
        members: Groups and arrays by name, in the order of the file.
    """

    attributes: dict[str, Any] = field(default_factory=dict)
    members: dict[str, Hdf5Group | Array] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Array:
    """An array in the file, with its attributes; of bfloat16 and other types that NumPy lacks, the bytes."""

    attributes: dict[str, Any]
    values: np.ndarray


def read_hdf5(path: Path) -> Hdf5Group:
    """Returns all that a file holds.

    Raises:
        Hdf5Error: If it is damaged, or has more than groups, arrays and attributes.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        reader = _Reader(file, path.stat().st_size)
        try:
            root = reader.read_all()
        except (struct.error, UnicodeDecodeError, IndexError) as error:
            raise Hdf5Error(f"the file is damaged ({error})") from None
    if not isinstance(root, Hdf5Group):
        raise Hdf5Error("the file is damaged (its root is not a group)")
    return root


class _Reader:
    """One file."""

    def __init__(self, file: BufferedReader, size: int):
        # Arrays may not lie over each other, or they would take more than the file has.
        self._file, self._left = file, size
        self._blocks = DataBlocks(file, size)
        self._objects: set[int] = set()

    def read_all(self) -> Hdf5Group | Array:
        return self._read(self._blocks.root(), "/", 0)

    def _read(self, address: int, name: str, depth: int) -> Hdf5Group | Array:
        if address in self._objects:
            raise Hdf5Error(f"{shown(name)} is there under another name too")
        self._objects.add(address)
        if depth > _DEEPEST or len(self._objects) > _MOST_OBJECTS:
            raise Hdf5Error(f"it has more than {_MOST_OBJECTS} objects, or more than {_DEEPEST} inside each other")
        found: dict[int, list[bytes]] = {}
        for kind, content in self._blocks.messages(address, name):
            if kind in _REFUSED:
                raise Hdf5Error(f"{shown(name)} {_REFUSED[kind]}")
            found.setdefault(kind, []).append(content)
        unknown = set(found) - _READ - _IGNORED
        if unknown:
            raise Hdf5Error(f"{shown(name)} has what Keras does not write (message {min(unknown)})")
        for content in found.get(_ATTRIBUTE_INFO, ()):
            flags = content[1]
            if content[2 + 2 * (flags & 1) :][:8] != b"\xff" * 8:
                raise Hdf5Error(f"{shown(name)} has more attributes than are read")
        attributes = dict(self._attribute(Piece(content), name) for content in found.get(_ATTRIBUTE, ()))
        if _LAYOUT in found:
            dataspace, datatype, layout = (Piece(_only(found, kind, name)) for kind in (_DATASPACE, _DATATYPE, _LAYOUT))
            return Array(attributes, self._array(_shape(dataspace), _dtype(datatype, name), layout, name))
        members: dict[str, Hdf5Group | Array] = {}
        for member, place in self._blocks.links(found, name):
            if member in members or not member or "/" in member or member == ".":
                raise Hdf5Error(f"the file is damaged (a name {shown(member)} in {shown(name)})")
            members[member] = self._read(place, f"{name.rstrip('/')}/{member}", depth + 1)
        return Hdf5Group(attributes, members)

    def _array(self, shape: tuple[int, ...], dtype: np.dtype | None, layout: Piece, name: str) -> np.ndarray:
        if dtype is None or dtype.kind == "S":
            raise Hdf5Error(f"{shown(name)} holds texts, not numbers")
        size = math.prod(shape) * dtype.itemsize
        version, kind = layout.number(1), layout.number(1)
        if version not in (3, 4) or kind not in (0, 1):
            how = {2: "in chunks", 3: "in other arrays or files"}.get(kind, "in a way that is not read")
            raise Hdf5Error(f"{shown(name)} has its values {how}")
        address, there = (None, layout.number(2)) if kind == 0 else (layout.number(8), layout.number(8))
        if there != size or (size and address == UNDEFINED):
            raise Hdf5Error(f"{shown(name)} of the shape {shown(shape)} claims {size} bytes, and {there} are there")
        self._left -= size
        if self._left < 0 or (address is not None and size and address + size > self._blocks.size):
            raise Hdf5Error(f"the file is damaged, or cut off after {self._blocks.size} bytes")
        try:
            values = np.empty(shape, dtype)
        except ValueError:  # lengths beyond NumPy's numbers where another one is 0
            raise Hdf5Error(f"{shown(name)} has the impossible shape {shown(shape)}") from None
        if size:
            content = values.reshape(-1).view(np.uint8)
            if address is None:
                content[:] = np.frombuffer(layout.take(size), np.uint8)
            else:
                self._file.seek(address)
                if self._file.readinto(content.data) != size:
                    raise Hdf5Error("the file has become shorter while it was read")
        # A byte that is a truth value may be any in the file.
        return values.view(np.uint8) != 0 if dtype.kind == "b" else values.astype(dtype.newbyteorder("="), copy=False)

    def _attribute(self, block: Piece, name: str) -> tuple[str, Any]:
        version, flags = block.number(1), block.number(1)
        sizes = [block.number(2) for _ in range(3)]
        if version not in (1, 2, 3) or (version > 1 and flags):
            raise Hdf5Error(f"an attribute of {shown(name)} is described in a way that is not read")
        block.take(version == 3)
        parts = []
        for size in sizes:
            parts.append(block.take(size))
            block.take(-size % 8 if version == 1 else 0)
        attribute = parts[0].rstrip(b"\0").decode()
        of = f"{name.rstrip('/')}@{attribute}"
        shape, dtype = _shape(Piece(parts[2])), _dtype(Piece(parts[1]), of)
        count = math.prod(shape)
        content = block.rest()
        width = 16 if dtype is None else dtype.itemsize
        if len(content) < count * width:
            raise Hdf5Error(f"{shown(of)} of the shape {shown(shape)} has {len(content)} bytes")
        if dtype is None:
            texts = [self._blocks.text(content[16 * n : 16 * n + 16]) for n in range(count)]
            return attribute, np.array(texts, object).reshape(shape) if shape else texts[0]
        values = np.frombuffer(content[: count * width], dtype).reshape(shape)
        return attribute, values if shape else values[()]


def _only(found: dict[int, list[bytes]], kind: int, name: str) -> bytes:
    contents = found.get(kind, [])
    if len(contents) != 1:
        raise Hdf5Error(f"the file is damaged ({shown(name)} is described {len(contents)} times)")
    return contents[0]


def _shape(block: Piece) -> tuple[int, ...]:
    version, rank, _ = block.number(1), block.number(1), block.number(1)
    known = block.take(5) if version == 1 else version == 2 and block.number(1) < 2
    if not known or rank > 32:
        raise Hdf5Error("the file is damaged, or has an array without values")
    return tuple(block.number(8) for _ in range(rank))


def _dtype(block: Piece, name: str) -> np.dtype | None:
    """Returns the type of an array, None for texts of variable length."""
    kind, bits, size = block.number(1) & 15, block.number(3), block.number(4)
    order = ">" if bits & 1 else "<"
    if kind == 0 and size in (1, 2, 4, 8) and struct.unpack("<HH", block.take(4)) == (0, 8 * size):
        return np.dtype(f"{order}{'i' if bits & 8 else 'u'}{size}")
    if kind == 1 and not bits & 0x40:
        offset, _, *parts, bias = struct.unpack("<HHBBBBI", block.take(12))
        of_numpy = _FLOATS.get((8 * size, *parts, bias))
        if of_numpy and offset == 0 and bits >> 8 & 0xFF == 8 * size - 1:
            return np.dtype(f"{order}{of_numpy}")
    if kind == 3 and 0 < size <= 1 << 16:
        return np.dtype(f"S{size}")
    # h5py stores bfloat16 and 8-bit floats so; Keras marks the former by an attribute.
    if kind == 5 and size in (1, 2):
        return np.dtype(f"V{size}")
    if kind == 8 and size == 1 and any(pair in block.content for pair in _TRUTH):
        return np.dtype(bool)
    if kind == 9 and bits & 15 == 1 and size == 16:
        return None
    raise Hdf5Error(f"{shown(name)} is of a type that is not read")
