"""Zip files of others: what a member takes in memory is known before it is read, and its checksum holds."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from keras_residual._errors import printable, shown

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
# Weights and pictures hardly get smaller by compression: what grows more than this is made to fill the memory.
_ROOM, _GROWTH = 128_000_000, 10
_CHUNK = 1 << 20
_LONGEST_NUMPY_HEADER = 10_000
_LOCAL_LENGTHS = 26  # of name and extra field in the header before a member


class ArchiveError(ValueError):
    """What is wrong with a zip file: a text without a full stop, to which the caller adds the file and the way out."""


class Archive:
    """A zip file that is open for reading.

    Members are stored or deflated. All of them together hold 128 MB and ten times the size of the file at most, of
    which a file of weights or pictures stays far.

    Args:
        path: The file.

    Raises:
        ArchiveError: If it is damaged, or no such zip file; so do the methods.
        OSError: If it cannot be opened.

    Example:
        >>> from keras_residual._archive import Archive
        >>> np.savez("weights.npz", kernel=np.ones((2, 3)))
        >>> with Archive("weights.npz") as archive:
        ...     list(archive.names), archive.array("kernel.npy").shape
        (['kernel.npy'], (2, 3))
    """

    def __init__(self, path: str | Path):
        with _saying_what_is_damaged():
            self._zip = zipfile.ZipFile(path)
        try:
            self._members = self._checked(Path(path).stat().st_size)
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the members, without folders."""
        return tuple(self._members)

    def size(self, name: str) -> int:
        """Returns how many bytes a member holds."""
        return self._member(name).file_size

    def read(self, name: str) -> bytearray:
        """Returns the content of a member."""
        content = bytearray(self.size(name))
        self._fill(name, 0, memoryview(content))
        return content

    def copy(self, name: str, path: Path) -> None:
        """Writes the content of a member to a new file."""
        with path.open("xb") as file:
            for chunk in self._chunks(name):
                file.write(chunk)

    def array(self, name: str, *, kinds: str = "biufc") -> np.ndarray:
        """Returns the array in a member that `numpy.save` wrote.

        Args:
            name: Name of the member.
            kinds: NumPy's letters for the kinds of types that are read; by default numbers and booleans.
        """
        with _saying_what_is_damaged(), self._zip.open(self._member(name)) as file:
            shape, fortran_order, dtype = _numpy_header(file)
            start = file.tell()
        if dtype.hasobject:
            raise ArchiveError(f"{shown(name)} holds Python objects, which are not read")
        if dtype.kind not in kinds or dtype.itemsize == 0:
            raise ArchiveError(f"{shown(name)} is of the type {printable(dtype)}, not of numbers")
        claimed, there = math.prod(shape) * dtype.itemsize, self.size(name) - start
        if claimed != there:
            raise ArchiveError(
                f"{shown(name)} is damaged: the shape {shown(shape)} takes {claimed} bytes, but {there} are there"
            )
        try:
            array = np.empty(shape, dtype, order="F" if fortran_order else "C")
        except ValueError as error:  # a shape that NumPy does not have, with no value in it
            raise ArchiveError(f"{shown(name)} cannot have the shape {shown(shape)} ({error})") from None
        content: Any = array.reshape(-1, order="A").view(np.uint8)
        self._fill(name, start, memoryview(content))
        return array

    def place(self, name: str) -> tuple[int, tuple[int, ...], np.dtype] | None:
        """Returns where in the file the numbers of an array lie, its shape and type; None where they do not lie so.

        They do in a member that is not compressed, with the last axis together. Its checksum is not looked at.
        """
        member = self._member(name)
        if member.compress_type != zipfile.ZIP_STORED:
            return None
        with _saying_what_is_damaged(), self._zip.open(member) as file:
            shape, fortran_order, dtype = _numpy_header(file)
            header = file.tell()
        if fortran_order or dtype.hasobject or math.prod(shape) * dtype.itemsize != member.file_size - header:
            return None
        # The local header has a length of its own: its extra field is not that of the directory.
        with Path(str(self._zip.filename)).open("rb") as file:
            file.seek(member.header_offset + _LOCAL_LENGTHS)
            lengths = file.read(4)
        name_length, extra = int.from_bytes(lengths[:2], "little"), int.from_bytes(lengths[2:], "little")
        return member.header_offset + _LOCAL_LENGTHS + 4 + name_length + extra + header, shape, dtype

    def _member(self, name: str) -> zipfile.ZipInfo:
        try:
            return self._members[name]
        except KeyError:
            raise ArchiveError(f"it has no {shown(name)}") from None

    def _fill(self, name: str, start: int, content: memoryview) -> None:
        place = 0
        for chunk in self._chunks(name, start):
            content[place : place + len(chunk)] = chunk
            place += len(chunk)

    def _chunks(self, name: str, start: int = 0) -> Iterator[bytes]:
        """Yields the content of a member from a place to its end; only there its checksum is known."""
        left = self.size(name) - start
        with _saying_what_is_damaged(), self._zip.open(self._member(name)) as file:
            file.read(start)
            while chunk := file.read(_CHUNK):
                left -= len(chunk)
                yield chunk
        if left:
            raise ArchiveError(f"{shown(name)} is cut off")

    def _checked(self, size: int) -> dict[str, zipfile.ZipInfo]:
        members = [member for member in self._zip.infolist() if not member.is_dir()]
        # PyTorch can be told to write no checksums.
        without_checksums = all(member.CRC == 0 for member in members)
        found: dict[str, zipfile.ZipInfo] = {}
        stored = 0
        for member in members:
            name = shown(member.filename)
            if member.flag_bits & _ENCRYPTED:
                raise ArchiveError(f"{name} is encrypted")
            if member.compress_type not in _METHODS:
                method = {zipfile.ZIP_BZIP2: "the bzip2", zipfile.ZIP_LZMA: "the lzma"}.get(
                    member.compress_type, "another"
                )
                raise ArchiveError(f"{name} is compressed by {method} method, and only deflate is read")
            if member.filename in found:
                raise ArchiveError(f"it has {name} twice")
            if member.compress_type == zipfile.ZIP_STORED:
                if member.compress_size != member.file_size:
                    raise ArchiveError(f"the sizes of {name} do not agree")
                stored += member.file_size
            if without_checksums:
                del member.CRC
            found[member.filename] = member
        expanded = sum(member.file_size for member in found.values()) - stored
        if stored > size:
            raise ArchiveError(f"its members claim {stored} bytes, but the file has {size}")
        if expanded > _ROOM + _GROWTH * size:
            raise ArchiveError(
                f"its {size} bytes would become {expanded + stored}, more than {_ROOM} and {_GROWTH} times its size; "
                "without compression it is read"
            )
        return found


def _numpy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    read: Any = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
        # Differs from 2.0 in the names of fields, which arrays of numbers do not have.
        (3, 0): np.lib.format.read_array_header_2_0,
    }[np.lib.format.read_magic(file)]
    shape, fortran_order, dtype = read(file, max_header_size=_LONGEST_NUMPY_HEADER)
    if not all(type(length) is int and length >= 0 for length in shape):
        raise ArchiveError(f"an array cannot have the shape {shown(shape)}")
    return shape, fortran_order, dtype


@contextmanager
def _saying_what_is_damaged() -> Iterator[None]:
    """Around everything in which the standard library or NumPy read what others wrote."""
    try:
        yield
    except ArchiveError:
        raise
    # Besides BadZipFile there come zlib.error, EOFError, KeyError, NotImplementedError, OverflowError, RecursionError,
    # RuntimeError, struct.error, UnicodeDecodeError and others.
    except Exception as error:
        # A file that cannot be opened is just that; a place in front of its beginning is damage.
        if isinstance(error, OSError) and error.filename is not None:
            raise
        reason = printable(error).rstrip(".") or type(error).__name__
        raise ArchiveError(f"the file is damaged ({reason})") from None
