"""A dictionary of arrays becomes a safetensors file, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from keras_residual import _atomic, _optional
from keras_residual._errors import bad_argument
from keras_residual.weights.file_format import local_path

_OWNER = "write_safetensors"
_WRITABLE = {
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
    "float16", "bfloat16", "float32", "float64", "complex64",
}  # fmt: skip


def write_safetensors(
    path: str | Path,
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Writes arrays to a `.safetensors` file, which is at every moment whole or not there.

    Args:
        path: The file; its folder must exist.
        tensors: Arrays of any shape by name: booleans, whole numbers, floats of 16 to 64 bits, complex64.
        metadata: Texts by name, for the header of the file.
        overwrite: Whether a file that is there may be replaced.

    Raises:
        FileExistsError: If the file is there and `overwrite` is False.
        ValueError: If the folder is missing, or there are values that such a file cannot hold.
        OSError: If the disk fills or cannot be written to.
        ImportError: If safetensors is not installed; it comes with the extra `hub`.

    Example:
        >>> from keras_residual.weights.writer import write_safetensors
        >>> write_safetensors("weights.safetensors", {"fc.weight": np.ones((2, 3), "float32")})
    """
    path = local_path(path)
    arrays = {name: _array(name, value) for name, value in tensors.items()}
    if not arrays:
        raise bad_argument(_OWNER, "tensors", "a dictionary with an array at least", dict(tensors))
    for name, text in (metadata or {}).items():
        if not (isinstance(name, str) and isinstance(text, str)):
            raise bad_argument(
                _OWNER, "metadata", "texts by name", metadata, "Turn other values into text: json.dumps."
            )
    if not path.parent.is_dir():
        raise bad_argument(_OWNER, "path", "in a folder that exists", str(path), "Make the folder, or choose another.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{_OWNER}: {str(path)!r} exists. Pass `overwrite=True`, or choose another name.")
    safetensors, numpy = (_optional.require(name, extra="hub") for name in ("safetensors", "safetensors.numpy"))
    with _atomic.replacing(path) as beside:
        try:
            numpy.save_file(arrays, beside, dict(metadata or {}) or None)
        except safetensors.SafetensorError as error:
            raise OSError(f"{_OWNER}: {str(path)!r} could not be written ({error}).") from None


def _array(name: str, value: np.ndarray) -> np.ndarray:
    # Not ascontiguousarray, which makes a vector of a scalar.
    array = np.asarray(value, order="C")
    if array.dtype.name not in _WRITABLE:
        raise bad_argument(
            _OWNER, f"tensors[{name!r}]", f"of one of the types {', '.join(sorted(_WRITABLE))}", array.dtype.name
        )
    return array
