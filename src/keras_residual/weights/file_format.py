"""Which format a checkpoint has: told by its content, since names are often wrong."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path
from typing import Literal

from keras_residual._archive import Archive, ArchiveError
from keras_residual._errors import CheckpointError, bad_checkpoint
from keras_residual.weights.safetensors_file import full_size, header_length

Format = Literal["safetensors", "pytorch", "npz", "hdf5"]

_GET_AGAIN = "Delete it and get it again."
_FORMATS = "Give a .safetensors, a .pth, .pt, .th or .bin that torch.save wrote, or a .npz."


def local_path(path: str | Path) -> Path:
    """Returns a path whose `~` is the user's home folder.

    Raises:
        CheckpointError: If nobody knows that folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise bad_checkpoint(path, "the home folder of the user is not known", "Give the whole path.") from None


def file_format(path: Path) -> Format:
    """Returns the format of the file.

    Raises:
        CheckpointError: If there is no such file, it cannot be read, or it is empty, cut off or no checkpoint.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise bad_checkpoint(path, "it is a folder", "Give the file in it that holds the weights.")
        # Of a pipe or a device nobody knows where it ends.
        if not stat.S_ISREG(status.st_mode):
            raise bad_checkpoint(path, "it is no regular file", "Copy what it holds into a file.")
        if is_cut_off(path):
            what = f"the file is cut off after {status.st_size} bytes" if status.st_size else "the file is empty"
            raise bad_checkpoint(path, what, _GET_AGAIN)
        with path.open("rb") as file:
            head = file.read(64)
    except CheckpointError:
        raise
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name with a zero byte
        raise bad_checkpoint(path, "there is no such file", "Check the path.") from None
    except OSError as error:
        raise bad_checkpoint(path, f"it cannot be read ({error.strerror or error})", "Check the path.") from None
    if _is_zip(head):
        return _format_in_zip(path)
    if header_length(head):
        return "safetensors"
    # Before version 1.6 PyTorch wrote bare pickles.
    if head.startswith(b"\x80"):
        return "pytorch"
    if head.startswith(b"\x89HDF"):
        return "hdf5"
    raise bad_checkpoint(path, *_no_checkpoint(head))


def is_cut_off(path: Path) -> bool:
    """Returns whether the end of the file is missing, as far as its beginning and its name tell."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(9)
    if _is_zip(head):
        return not zipfile.is_zipfile(path)
    if header_length(head):
        return size < full_size(path)
    return size == 0 or (size <= 8 and path.suffix == ".safetensors")


def _is_zip(head: bytes) -> bool:
    return head.startswith(b"PK")


def _format_in_zip(path: Path) -> Format:
    try:
        with Archive(path) as archive:
            names = archive.names
    except ArchiveError as error:
        raise bad_checkpoint(path, str(error), _GET_AGAIN) from None
    last_parts = {name.rpartition("/")[2] for name in names}
    if "model.weights.h5" in last_parts:
        raise bad_checkpoint(path, "it is a whole Keras model", "Load it with keras.saving.load_model(path).")
    if "constants.pkl" in last_parts:
        raise bad_checkpoint(
            path,
            "it is a TorchScript program, not a checkpoint",
            "Load it with torch.jit.load(path) and save its weights: torch.save(model.state_dict(), path).",
        )
    if "data.pkl" in last_parts:
        return "pytorch"
    if all(name.endswith(".npy") for name in names):
        return "npz"
    raise bad_checkpoint(path, "it is a zip file without weights", _FORMATS)


def _no_checkpoint(head: bytes) -> tuple[str, str]:
    """Returns what the file is, as far as its beginning tells, and the way out."""
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer that Git LFS leaves for the file", "Get the file itself: git lfs pull."
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page", "Download the file itself, not the page about it."
    return "it has no format that is known", _FORMATS
