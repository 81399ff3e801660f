"""Files of rows that are read by their places, and scratch files for what has no places: written once, never seen."""

from __future__ import annotations

import math
import os
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from keras_residual._errors import bad_data, printable
from keras_residual.data.lazy import LazyExamples, places_of

_DISK = Path("/var/tmp")  # which lies on a disk where /tmp may be memory


class OpenFile:
    """A file that is read from any thread, by places, and is closed when nothing refers to it any more.

    Args:
        file: The file, which nobody else closes.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.name = str(file.name)
        self.write, self.flush, self._number = file.write, file.flush, file.fileno()
        weakref.finalize(self, file.close)

    def read(self, start: int, length: int) -> bytes:
        """Returns some bytes."""
        return os.pread(self._number, length, start)

    def read_into(self, part: memoryview, start: int) -> None:
        """Fills a part of an array.

        Raises:
            OSError: If the file ends before.
        """
        done = 0
        while done < len(part):
            count = os.preadv(self._number, [part[done:]], start + done)
            if not count:
                raise OSError(None, f"the file {printable(self.name)} has become shorter")
            done += count


def rows_of_file(
    file: OpenFile, start: int, shape: tuple[int, ...], dtype: Any, digests: np.ndarray | None = None
) -> LazyExamples:
    """Returns the rows of an array that lies in a file as NumPy has it in memory; they are read when asked for.

    Args:
        file: The file.
        start: Where in it the array begins.
        shape: That of the array; the first axis is the examples.
        dtype: Type of its numbers.
        digests: As `LazyExamples` takes them.
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape[1:]) * dtype.itemsize

    def read(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        result = np.empty((len(places), *shape[1:]), dtype)
        into: Any = result.reshape(-1).view(np.uint8)
        ends = np.flatnonzero(np.diff(places) != 1) + 1  # of runs that lie side by side
        for first, end in zip([0, *ends.tolist()], [*ends.tolist(), len(places)], strict=True):
            if end > first:
                part = memoryview(into)[first * size : end * size]
                file.read_into(part, start + int(places[first]) * size)
        return result, np.ones(len(places), bool)

    return LazyExamples(read, shape[1:], dtype, places_of(shape[0]), digests)


def scratch_folder() -> str:
    """Returns where scratch files lie."""
    return os.environ.get("TMPDIR") or (str(_DISK) if _DISK.is_dir() else tempfile.gettempdir())


@contextmanager
def scratch_file(owner: str) -> Iterator[OpenFile]:
    """Opens a file that has no name and ends with whatever refers to it; within the block it is written.

    It lies in `TMPDIR`, else in /var/tmp, else where the system has such files.

    Raises:
        ValueError: If it cannot be written, as on a full disk.
    """
    folder = scratch_folder()
    try:
        file = OpenFile(tempfile.TemporaryFile(prefix="keras-residual-", dir=folder))  # noqa: SIM115
        yield file
        file.flush()
    except OSError as error:
        if error.errno is None or error.filename not in (None, folder):
            raise
        raise bad_data(
            owner, f"no scratch file can be written in {printable(folder)} "
            f"({error.strerror}), and the data have to be unpacked there once, since they do not fit into data.memory",
            "Set TMPDIR to a folder on a disk with room, or raise data.memory.",
        ) from None  # fmt: skip
