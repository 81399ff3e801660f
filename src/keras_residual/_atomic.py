"""Files that are whole or not there: written beside, flushed to the disk, renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a name beside `path` to write to; renames it to `path` if the block ends well, else removes it.

    The file at `path` is at every moment the old one or the new one, also when the process is killed or the disk
    is full. The temporary name keeps the suffix, by which Keras chooses the format.
    """
    beside = path.with_name(f".writing-{os.getpid()}-{path.name}")
    try:
        yield beside
        _flush(beside)
        beside.replace(path)
        _flush(path.parent)
    finally:
        with suppress(OSError):
            beside.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces the file at `path` by `content`."""
    with replacing(path) as beside:
        beside.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Replaces the file at `path` by `content` in UTF-8."""
    write_bytes(path, content.encode())


def _flush(path: Path) -> None:
    # A folder cannot be opened on Windows, where the rename needs no flush of the folder either.
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
