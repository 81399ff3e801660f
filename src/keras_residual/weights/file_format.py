"""Which format a checkpoint has: told by its content, since names are often wrong."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Literal

from keras_residual._errors import bad_checkpoint

Format = Literal["safetensors", "pytorch", "npz", "hdf5"]

_GET_AGAIN = "Delete it and get it again."
_FORMATS = "Give a .safetensors, a .pth, .pt, .th or .bin that torch.save wrote, or a .npz."
# A safetensors file begins with the length of its header in eight bytes; the format allows this much.
_LENGTH_BYTES, _MAX_HEADER = 8, 100_000_000


def file_format(path: Path) -> Format:
    """Returns the format of the file.

    Raises:
        CheckpointError: If there is no such file, or it is empty, cut off or no checkpoint.
    """
    if path.is_dir():
        raise bad_checkpoint(path, "it is a folder", "Give the file in it that holds the weights.")
    if not path.exists():
        raise bad_checkpoint(path, "there is no such file", "Check the path.")
    if is_cut_off(path):
        size = path.stat().st_size
        what = f"the file is cut off after {size} bytes" if size else "the file is empty"
        raise bad_checkpoint(path, what, _GET_AGAIN)
    with path.open("rb") as file:
        head = file.read(64)
    if _is_zip(head):
        return _format_in_zip(path)
    if _header_length(head):
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
        head = file.read(_LENGTH_BYTES + 1)
        if _is_zip(head):
            return not zipfile.is_zipfile(path)
        length = _header_length(head)
        if not length:
            return size == 0 or (size <= _LENGTH_BYTES and path.suffix == ".safetensors")
        file.seek(_LENGTH_BYTES)
        header = file.read(length)
    if len(header) < length:
        return True
    try:
        tensors = json.loads(header)
        ends = [tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__"]
        return size < _LENGTH_BYTES + length + max(ends, default=0)
    except (ValueError, TypeError, AttributeError, LookupError):
        return False  # damaged in another way, of which the reader has more to say


def _is_zip(head: bytes) -> bool:
    return head.startswith(b"PK")


def _header_length(head: bytes) -> int:
    """Returns the length of the header in bytes if the file begins as safetensors do, else 0."""
    length = int.from_bytes(head[:_LENGTH_BYTES], "little")
    return length if head[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{" and length <= _MAX_HEADER else 0


def _format_in_zip(path: Path) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise bad_checkpoint(path, f"the file is damaged ({error})", _GET_AGAIN) from None
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
