"""A checkpoint file becomes a dictionary of arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from keras_residual._archive import Archive, ArchiveError
from keras_residual._errors import bad_checkpoint, shown
from keras_residual.weights.file_format import file_format, local_path
from keras_residual.weights.keras_applications import read_keras_applications
from keras_residual.weights.safetensors_file import read_safetensors
from keras_residual.weights.state_dict import find_state_dict
from keras_residual.weights.torch_file import read_torch_file
from keras_residual.weights.values import float32


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

    Example:
        >>> from keras_residual.weights.checkpoint import read_checkpoint
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
