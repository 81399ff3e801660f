"""What is checked of every file before it is read: that it is one, and that what it unpacks to fits into memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keras_residual._errors import bad_data, printable

# A small file may unpack to this much, a larger one to so many times its own size. Both are far more than real data
# needs (numbers as text grow by four, a table of flags in Parquet by some dozens), and far less than what crafted
# files ask for, which grow by thousands.
SMALL_BYTES = 2**28
MOST_GROWTH = 32


@contextmanager
def reading(owner: str, *, less: str) -> Iterator[None]:
    """Around everything that reads a source: what the system refuses becomes one line that says what and where.

    Args:
        owner: What is being read.
        less: What to do where memory does not suffice.

    Raises:
        ValueError: Instead of a `MemoryError`, and of an `OSError` such as "Permission denied".
    """
    try:
        yield
    except MemoryError:
        raise bad_data(owner, "it needs more memory than there is", less) from None
    except OSError as error:
        if error.errno is None:
            raise  # of the library, as for a set that cannot be downloaded
        where = f"{printable(error.filename)} " if error.filename else ""
        raise bad_data(
            owner, f"{where}cannot be read ({error.strerror})", "Correct the path, or see that you may read it."
        ) from None


def check_file(path: Path, *, owner: str) -> int:
    """Returns the size in bytes of the file.

    Raises:
        ValueError: If there is something else at the path, such as a pipe, which may never end.
    """
    if not path.is_file():
        raise bad_data(
            owner, f"{printable(path)} is no file but a {'folder' if path.is_dir() else 'pipe or a device'}",
            "Name a file.",
        )  # fmt: skip
    return path.stat().st_size


def check_unpacked(size: int, packed: int, *, owner: str, what: str, way_out: str) -> None:
    """Raises a ValueError where `size` bytes in memory are more than what `packed` bytes on the disk may unpack to."""
    allowed = max(SMALL_BYTES, MOST_GROWTH * packed)
    if size > allowed:
        raise bad_data(
            owner, f"{what} would take {in_words(size)} of memory, and {in_words(allowed)} are allowed for a file of "
            f"{in_words(packed)}", way_out,
        )  # fmt: skip


def in_words(size: int) -> str:
    """Returns a number of bytes as text, in the largest unit of which there is one at least."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
