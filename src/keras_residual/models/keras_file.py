"""Models from `.keras` files of unknown origin: Keras receives only what has been checked."""

from __future__ import annotations

import math
import tempfile
import warnings
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import keras
import numpy as np

import keras_residual.stacks.stack  # noqa: F401 - registers the layers that a saved model may be made of
from keras_residual import _json
from keras_residual._archive import Archive, ArchiveError
from keras_residual._errors import printable, shown
from keras_residual.models.costs import without_initial_values
from keras_residual.weights.formats.hdf5 import Array, Hdf5Group, read_hdf5
from keras_residual.weights.formats.hdf5_blocks import Hdf5Error

_CONFIG, _METADATA, _WEIGHTS, _ASSETS = "config.json", "metadata.json", "model.weights.h5", "assets"
# Besides its weights a model has variables that the file does not hold: states of random generators, counters.
_SPARE = 1_000_000


class KerasFileError(ValueError):
    """A file that is not a Keras model, or that is refused."""


def load_keras_model(path: Path, *, compiled: bool = False) -> keras.Model:
    """Returns the model in a `.keras` file, in Keras's safe mode.

    Keras receives a copy that holds only what Keras itself writes: JSON, assets inside their folder, and arrays whose
    values are in the file, without links. The copy is written from what was read, so a damaged or hostile weights file
    never reaches the HDF5 library. A configuration that claims more weights than the file has is refused before any of
    them is created.

    Args:
        path: The file.
        compiled: Whether to compile the model as it was, if possible.

    Raises:
        KerasFileError: If it is not such a file, or is refused; with the reason in one line.
        OSError: If it cannot be read, or the copy does not fit on the disk.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="keras-residual-") as folder:
            copy = Path(folder) / "model.keras"
            _copy_checked(path, copy)
            if compiled:
                try:
                    return _loaded(copy, compiled=True)
                except Exception:  # a custom loss or metric; the layers may still be Keras's own
                    return _loaded(copy, compiled=False)
            return _loaded(copy, compiled=False)
    except OSError:
        raise
    # A layer may raise anything when it is given a configuration that is not its own.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise KerasFileError(f"{printable(path)} cannot be read as a Keras model: {printable(reason, 1000)}") from error


def _loaded(path: Path, *, compiled: bool) -> keras.Model:
    model: Any = keras.saving.load_model(path, compile=compiled, safe_mode=True)
    return model


def _copy_checked(path: Path, copy: Path) -> None:
    """Writes a copy of a model file with only those parts that Keras writes."""
    if not path.is_file():
        raise KerasFileError("it is not a regular file")
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            begins = file.read(2)
        if begins in (b"", b"PK"):
            what = "its end is missing" if begins else "it is empty"
            raise KerasFileError(f"it is damaged: {what}. Take another copy of it, or train again")
        raise KerasFileError(
            "it is not a .keras file. Load it with Keras and save it as one: model.save('model.keras')"
        )
    with Archive(path) as archive:
        strange = [name for name in archive.names if not _is_written_by_keras(name)]
        missing = {_CONFIG, _WEIGHTS}.difference(archive.names)
        if strange or missing:
            what = f"it has {shown(strange[0])}, which Keras does not write" if strange else f"it has no {min(missing)}"
            raise KerasFileError(what)
        weights = copy.with_name(_WEIGHTS)
        archive.copy(_WEIGHTS, weights)
        try:
            content = read_hdf5(weights)
        except Hdf5Error as error:
            raise KerasFileError(f"of its weights: {error}") from None
        weights.unlink()
        for name in (_CONFIG, _METADATA):
            if name in archive.names:
                config = _parsed(archive, name)
                if name == _CONFIG:
                    _check_size(config, _values(content))
        with zipfile.ZipFile(copy, "w") as written:
            for name in archive.names:
                if name == _WEIGHTS:
                    _write(content, weights)
                else:
                    archive.copy(name, weights)
                written.write(weights, name)
                weights.unlink()


def _is_written_by_keras(name: str) -> bool:
    parts = PurePosixPath(name).parts
    plain = not any(part in ("..", "/") or "\\" in part or ":" in part for part in parts)
    return name in (_CONFIG, _METADATA, _WEIGHTS) or (plain and len(parts) > 1 and parts[0] == _ASSETS)


def _parsed(archive: Archive, name: str) -> dict[str, Any]:
    try:
        found = _json.parse(bytes(archive.read(name)))
    except ArchiveError:
        raise
    except ValueError as error:
        raise KerasFileError(f"of its {name}: {error}") from None
    if not isinstance(found, dict):
        raise KerasFileError(f"its {name} is no JSON object")
    return found


def _check_size(config: dict[str, Any], values: int) -> None:
    """Builds the model without values, and compares the number of its weights with that in the file."""
    with without_initial_values(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come when the model is made in earnest
        model: Any = keras.saving.deserialize_keras_object({**config, "compile_config": None}, safe_mode=True)
        claimed = sum(math.prod(weight.shape) for weight in getattr(model, "weights", ()))
    if claimed > values + _SPARE:
        raise KerasFileError(f"its configuration claims {claimed} weights, but the file has {values}")


def _values(group: Hdf5Group) -> int:
    return sum(
        _values(member) if isinstance(member, Hdf5Group) else member.values.size for member in group.members.values()
    )


def _write(content: Hdf5Group, path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        _fill(file, content)


def _fill(file: Any, content: Hdf5Group | Array) -> None:
    for name, value in content.attributes.items():
        texts = isinstance(value, np.ndarray) and value.dtype.kind == "O"
        file.attrs[name] = value.tolist() if texts else value
    for name, member in content.members.items() if isinstance(content, Hdf5Group) else ():
        if isinstance(member, Hdf5Group):
            _fill(file.create_group(name), member)
        else:
            _fill(file.create_dataset(name, data=member.values), member)
