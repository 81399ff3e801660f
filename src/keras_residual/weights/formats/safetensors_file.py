"""Safetensors files: a JSON header, followed by the tensors one after the other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_residual import _json
from keras_residual._errors import bad_checkpoint, shown
from keras_residual.weights.formats.values import WIDTHS, from_bytes

# A file begins with the length of its header in eight bytes; the format allows this much.
_LENGTH_BYTES, _MAX_HEADER = 8, 100_000_000
_TYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
}  # fmt: skip


class SafetensorsError(ValueError):
    """A fault in a safetensors file: a text without a full stop."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a header.

    Args:
        start: Where it begins, in bytes after the header.
        end: Where it ends.
        name: Its name.
        kind: Type of its values as the format calls it.
        shape: Its shape.
    """

    start: int
    end: int
    name: str
    kind: str
    shape: tuple[int, ...]


def header_length(head: bytes) -> int:
    """Returns the length of the header in bytes if a file begins as safetensors do, else 0."""
    length = int.from_bytes(head[:_LENGTH_BYTES], "little")
    return length if head[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{" and length <= _MAX_HEADER else 0


def full_size(path: Path) -> int:
    """Returns how many bytes the file must have according to its beginning; 0 where that does not say it."""
    try:
        start, entries = _header(path)
        return start + max((entry.end for entry in entries), default=0)
    except SafetensorsError:
        with path.open("rb") as file:
            return _LENGTH_BYTES + header_length(file.read(_LENGTH_BYTES + 1))


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors by name.

    Raises:
        CheckpointError: If the file is damaged, that is its header is no JSON, names something twice, or describes
            tensors that do not fill the rest of the file one after the other; or if a tensor is of a type that is not
            read.
    """
    try:
        start, entries = _header(path)
        _check(entries, path.stat().st_size - start)
    except SafetensorsError as error:
        raise bad_checkpoint(path, f"the file is damaged ({error})", "Delete it and get it again.") from None
    tensors = {}
    with path.open("rb") as file:
        file.seek(start)
        for entry in entries:
            if entry.kind not in _TYPES:
                what = f"the tensor {shown(entry.name)} is of the type {shown(entry.kind)}"
                raise bad_checkpoint(path, what, "Save it as float32, float16 or bfloat16.")
            content = np.fromfile(file, np.uint8, entry.end - entry.start)
            try:
                tensors[entry.name] = from_bytes(content, _TYPES[entry.kind]).reshape(entry.shape)
            except ValueError:  # more axes than NumPy has, or lengths beyond its numbers where one is 0
                what = f"the tensor {shown(entry.name)} has the impossible shape {shown(entry.shape)}"
                raise bad_checkpoint(path, what, "Delete it and get it again.") from None
    return tensors


def _header(path: Path) -> tuple[int, list[TensorEntry]]:
    """Returns where the tensors begin, and the tensors in the order in which they lie."""
    with path.open("rb") as file:
        length = header_length(file.read(_LENGTH_BYTES + 1))
        file.seek(_LENGTH_BYTES)
        content = file.read(length)
    if len(content) < length:
        raise SafetensorsError("it ends within its header")
    try:
        header = _json.parse(content)
    except ValueError as error:
        raise SafetensorsError(f"of its header: {error}") from None
    if not isinstance(header, dict):
        raise SafetensorsError("its header is no JSON object")
    entries = [_entry(name, value) for name, value in header.items() if name != "__metadata__"]
    return _LENGTH_BYTES + length, sorted(entries, key=lambda entry: (entry.start, entry.end))


def _entry(name: str, value: Any) -> TensorEntry:
    match value:
        case {"dtype": str(kind), "shape": [*shape], "data_offsets": [int(start), int(end)]} if (
            all(type(length) is int and 0 <= length < 2**62 for length in (*shape, start, end)) and start <= end
        ):
            return TensorEntry(start, end, name, kind, tuple(shape))
    raise SafetensorsError(f"its header says of {shown(name)}: {shown(value)}")


def _check(entries: list[TensorEntry], size: int) -> None:
    place = 0
    for entry in entries:
        width = WIDTHS[_TYPES[entry.kind]] if entry.kind in _TYPES else None
        if width is not None and entry.end - entry.start != math.prod(entry.shape) * width:
            what = f"of the type {entry.kind} and the shape {shown(entry.shape)} has {entry.end - entry.start} bytes"
            raise SafetensorsError(f"{shown(entry.name)} {what}")
        if entry.start != place:
            raise SafetensorsError(
                f"{shown(entry.name)} begins at byte {entry.start} and the one before ends at {place}"
            )
        place = entry.end
    if place != size:
        raise SafetensorsError(f"its tensors take {place} bytes and it has {size}")
