"""A checkpoint file becomes a dictionary of arrays; its content tells the format, since names are often wrong."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np

from keras_residual._archive import Archive, ArchiveError
from keras_residual._errors import CheckpointError, bad_checkpoint, shown
from keras_residual.weights.formats.keras_applications import read_keras_applications
from keras_residual.weights.formats.safetensors_file import full_size, header_length, read_safetensors
from keras_residual.weights.formats.state_dict import find_state_dict
from keras_residual.weights.formats.torch_file import read_torch_file
from keras_residual.weights.formats.values import float32

Format = Literal["safetensors", "pytorch", "npz", "hdf5"]

_GET_AGAIN = "Delete it and get it again."
_FORMATS = "Give a .safetensors, a .pth, .pt, .th or .bin that torch.save wrote, or a .npz."


def read_checkpoint(path: str | Path, *, ema: bool = False) -> dict[str, np.ndarray]:
    """Returns the weights in a file: `.safetensors`, what `torch.save` wrote, `.npz`, or `.h5` of `keras.applications`.

    The content decides, not the name. Weights stored beside an optimizer are found. A prefix that all names share
    because of `DistributedDataParallel` or `torch.compile` is dropped, as are the counters of batch norms. `.h5` files
    are read for the ResNets v1 of `keras.applications`, with timm's names. Nothing in the file is executed.

    Args:
        path: The file.
        ema: Whether to read the averaged weights (`state_dict_ema`, `model_ema`) of a training program's checkpoint.

    Returns:
        Arrays by name: floats as float32, other types as they are. They are independent of the file.

    Raises:
        CheckpointError: If there is no file, it cannot be read, or it holds no weights; the message says which.

    Example:
        >>> from keras_residual.weights.files import read_checkpoint
        >>> np.savez("weights.npz", **{"module.fc.weight": np.ones((2, 3)), "module.fc.bias": np.zeros(2)})
        >>> {name: (array.shape, array.dtype.name) for name, array in read_checkpoint("weights.npz").items()}
        {'fc.weight': ((2, 3), 'float32'), 'fc.bias': ((2,), 'float32')}
    """
    path = local_path(path)
    kind = file_format(path)
    try:
        if kind == "pytorch":
            return read_torch_file(path, ema=ema)
        readers = {"safetensors": read_safetensors, "npz": _read_npz, "hdf5": read_keras_applications}
        return find_state_dict(readers[kind](path), path, ema=ema)
    except MemoryError:
        what = f"there is not enough memory for its {path.stat().st_size} bytes"
        raise bad_checkpoint(path, what, "Is it a file of holes, or that of a far larger model?") from None


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    try:
        with Archive(path) as archive:
            if not archive.names:
                raise ArchiveError("it holds no array")
            for name in archive.names:
                array = archive.array(name)
                if array.dtype.kind == "c":
                    raise ArchiveError(f"{shown(name)} is of the type {array.dtype}, and weights are real numbers")
                arrays[name.removesuffix(".npy")] = float32(array)
    except ArchiveError as error:
        raise bad_checkpoint(path, str(error), "Write it with numpy.savez, from arrays of real numbers.") from None
    return arrays


def local_path(path: str | Path) -> Path:
    """Returns a path with `~` expanded to the user's home folder.

    Raises:
        CheckpointError: If that folder is unknown.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise bad_checkpoint(path, "the home folder of the user is not known", "Give the whole path.") from None


def file_format(path: Path) -> Format:
    """Returns the format of the file.

    Raises:
        CheckpointError: If there is no such file, it cannot be read, or it is empty, truncated or not a checkpoint.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise bad_checkpoint(path, "it is a folder", "Give the file in it that holds the weights.")
        # A pipe or a device has no known end.
        if not stat.S_ISREG(status.st_mode):
            raise bad_checkpoint(path, "it is not a regular file", "Copy what it holds into a file.")
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
    """Returns whether the end of the file is missing, as far as its start and its name tell."""
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
    """Returns what the file is, as far as its start tells, and the way out."""
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer that Git LFS leaves for the file", "Get the file itself: git lfs pull."
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page", "Download the file itself, not the page about it."
    return "its format is not known", _FORMATS
