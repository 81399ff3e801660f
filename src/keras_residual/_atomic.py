"""Files and folders that are whole or not there: written beside, flushed to the disk, renamed."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = ".keras-residual-"
_LEFTOVER = re.compile(rf"{re.escape(_PREFIX)}[0-9a-f]{{16}}(\..*)?", re.DOTALL)
_DAY = 24 * 60 * 60
# A name of the writing may be longer than the file system takes; what decides on a format is short.
_LONGEST_SUFFIX = 40

_folders: set[Path] = set()
"""The folders that `folder_beside` has made and not removed yet."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a name beside `path` to write to; renames it to `path` if the block ends well, else removes it.

    The file at `path` is at every moment the old one or the new one, also when the process is killed or the disk
    is full, and of several writers the last one wins as a whole. As with an editor, a link stays and what it points to
    is replaced, and a file that was there keeps its permissions; one that may not be written to is left alone.

    The temporary name is random and keeps the suffix, by which Keras chooses the format. What a killed process of ours
    left is removed from the folder after a day.

    Raises:
        OSError: If there is something at `path` that is no regular file, or that may not be written to; if the folder
            is missing; if the disk is full.
    """
    target = Path(os.path.realpath(path))
    mode = _mode(target)
    _remove_leftovers(target.parent)
    suffix = "".join(target.suffixes[-2:])
    beside = target.with_name(f"{_PREFIX}{secrets.token_hex(8)}{suffix if len(suffix) <= _LONGEST_SUFFIX else ''}")
    # O_EXCL: never through a link, or into a file, that somebody else has put there. Who may not read the old file may
    # not read the new one while it is written either.
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600)
    try:
        mode = stat.S_IMODE(os.fstat(handle).st_mode) if mode is None else mode
        os.close(handle)
        yield beside
        # Some writers make a file of their own under the name.
        beside.chmod(mode)
        _flush(beside)
        beside.replace(target)
        # Some file systems cannot flush a folder, and the file has its name by now.
        with suppress(OSError):
            _flush(target.parent)
    finally:
        with suppress(OSError):
            beside.unlink()


def check_can_be_made(path: Path) -> None:
    """Raises what a new file or folder at a path would meet, and the missing folders above it.

    It tries, in the nearest folder that is there, since permissions alone do not tell. Whether something is at the path
    already is not looked at.

    Raises:
        OSError: If it cannot be made.
    """
    with suppress(FileNotFoundError):
        os.lstat(path)  # a name that is too long, a file in place of a folder
    nearest = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    beside = nearest / f"{_PREFIX}{secrets.token_hex(8)}"
    try:
        os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        if error.errno != errno.ENOSPC:  # whoever writes says what a full disk means
            raise
    else:
        beside.unlink()


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """Yields an empty folder on the file system of `path`, for what is renamed to `path` when it is whole.

    The folder is removed when the block ends, however it does; what a killed process of ours left, after a day.

    Raises:
        OSError: If no folder can be made there.
    """
    _remove_leftovers(path.parent)
    folder = path.parent / f"{_PREFIX}{secrets.token_hex(8)}"
    folder.mkdir()
    _folders.add(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _folders.discard(folder)


def leave() -> None:
    """Removes the folders that are still being written to.

    For a process that is about to end, from another thread than that of the work.
    """
    for folder in tuple(_folders):
        shutil.rmtree(folder, ignore_errors=True)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether the error, or one that it came from, says that no space is left.

    HDF5 reports a failed write by exceptions of its own, of several types, with the system's number in the text; ONNX
    Runtime and TensorFlow have the system's words.
    """
    while error is not None:
        text = str(error)
        if getattr(error, "errno", None) == errno.ENOSPC or f"errno = {errno.ENOSPC}" in text:
            return True
        if os.strerror(errno.ENOSPC) in text:
            return True
        error = error.__cause__ or error.__context__
    return False


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces the file at `path` by `content`; see `replacing`."""
    with replacing(path) as beside:
        beside.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Replaces the file at `path` by `content` in UTF-8; see `replacing`."""
    write_bytes(path, content.encode())


def _mode(target: Path) -> int | None:
    """Returns the permissions of the file that is there, None where there is none."""
    try:
        status = target.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, "The links lead back to themselves", str(target))
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file, so it is not replaced", str(target))
    if not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
    return stat.S_IMODE(status.st_mode) & 0o777


def _remove_leftovers(folder: Path) -> None:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _LEFTOVER.fullmatch(entry.name) and not entry.is_symlink():
                # Another process may be at the same, or the file be somebody else's.
                with suppress(OSError):
                    if time.time() - entry.stat(follow_symlinks=False).st_mtime > _DAY:
                        shutil.rmtree(entry.path) if entry.is_dir() else Path(entry.path).unlink()


def _flush(path: Path) -> None:
    # A folder cannot be opened on Windows, where the rename needs no flush of the folder either.
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
