"""A checkpoint file becomes a dictionary of arrays."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from keras_residual import _optional
from keras_residual._errors import bad_checkpoint
from keras_residual.weights.file_format import file_format
from keras_residual.weights.keras_applications import read_keras_applications
from keras_residual.weights.state_dict import find_state_dict

# As safetensors calls the types. NumPy has none for the other floats, of 8 bits and fewer.
_READABLE = {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "BF16", "F16", "F32", "F64", "C64"}


def read_checkpoint(path: str | Path, *, ema: bool = False) -> dict[str, np.ndarray]:
    """Returns the weights in a file: `.safetensors`, what `torch.save` wrote, `.npz`, or `.h5` of `keras.applications`.

    The content decides, not the name. Weights beside an optimizer are found; a prefix that all names share because of
    `DistributedDataParallel` or `torch.compile` is dropped, and so are the counters of batch norms. Of `.h5` the
    ResNets v1 of `keras.applications` are read, with timm's names. Nothing in the file is executed.

    Args:
        path: The file.
        ema: Whether to take the averaged weights (`state_dict_ema`, `model_ema`) of a training program's checkpoint.

    Returns:
        Arrays by name: floats as float32, other types as they are. They do not depend on the file any more.

    Raises:
        CheckpointError: If there is no file, or it cannot be read, or has no weights; says what is wrong.
        ImportError: If the package that reads the format is not installed; names the extra.

    Example:
        >>> from keras_residual.weights.checkpoint import read_checkpoint
        >>> np.savez("weights.npz", **{"module.fc.weight": np.ones((2, 3)), "module.fc.bias": np.zeros(2)})
        >>> {name: (array.shape, array.dtype.name) for name, array in read_checkpoint("weights.npz").items()}
        {'fc.weight': ((2, 3), 'float32'), 'fc.bias': ((2,), 'float32')}
    """
    path = Path(path).expanduser()
    readers = {
        "safetensors": _read_safetensors,
        "pytorch": _read_pytorch,
        "npz": _read_npz,
        "hdf5": read_keras_applications,
    }
    return find_state_dict(readers[file_format(path)](path), path, ema=ema)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    safetensors = _optional.require("safetensors", extra="hub")
    # Gives NumPy the type bfloat16, for which safetensors asks by name. Keras brings it.
    _optional.require("ml_dtypes", extra="hub")
    arrays = {}
    try:
        with safetensors.safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                kind = file.get_slice(name).get_dtype()
                if kind not in _READABLE:
                    raise bad_checkpoint(
                        path, f"the tensor {name!r} is of type {kind}", "Save it as float32, float16 or bfloat16."
                    )
                arrays[name] = _float32(file.get_tensor(name))
    except safetensors.SafetensorError as error:
        raise bad_checkpoint(path, f"the file is damaged ({error})", "Delete it and get it again.") from None
    return arrays


def _read_pytorch(path: Path) -> Any:
    from keras_residual._backend import torch_checkpoint

    return torch_checkpoint.read(path)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            stored = np.load(file, allow_pickle=False)
            arrays = {name: stored[name] for name in stored.files}
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        raise bad_checkpoint(
            path,
            f"it cannot be read as npz ({str(error).rstrip('.')})",
            "Write it with numpy.savez, from arrays of numbers.",
        ) from None
    for name, array in arrays.items():
        if array.dtype.kind not in "biufc":
            raise bad_checkpoint(path, f"the array {name!r} is of type {array.dtype}", "Leave it out.")
    return {name: _float32(array) for name, array in arrays.items()}


def _float32(array: np.ndarray) -> np.ndarray:
    # ml_dtypes's bfloat16 is of kind V.
    return array.astype(np.float32) if array.dtype.kind in "fV" and array.dtype != np.float32 else array
