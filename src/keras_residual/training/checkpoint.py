"""The last two states of a run on the disk: plain values and arrays in nested containers, a file each."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_residual import _atomic
from keras_residual._errors import bad_data, printable, shown
from keras_residual.data.npz import array_names, read_arrays
from keras_residual.training.run_directory import RunDirectory, steps_of

KEYS = frozenset(
    ("backend", "versions", "test", "step", "ended", "seconds", "record", "callbacks", "random", "variables", "metrics")
)
"""What a state holds."""

_KEPT = 2
_ABOUT = "about"
_PLAIN = (bool, int, float, str, type(None))


class Checkpoints:
    """Writes the state of a run into its folder `last/`, and reads the newest that is whole.

    Beside each state lies the best model of that moment, so that a run that goes on from there has both.

    Args:
        run: The run directory.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run = run

    def write(self, state: dict[str, Any], step: int) -> None:
        """Writes the state after a number of steps; the one before it is kept, those before that are removed.

        Raises:
            OSError: If it cannot be written; what is there stays as it is.
        """
        arrays: list[np.ndarray] = []
        about = json.dumps(pack(state, arrays))
        path = self._run.last / f"step-{step}.npz"
        path.parent.mkdir(exist_ok=True)
        if self._run.model.exists():
            _link(self._run.model, path.with_suffix(".keras"))
        named: dict[str, Any] = {str(index): array for index, array in enumerate(arrays)}
        with _atomic.replacing(path) as beside:
            np.savez(beside, **{_ABOUT: np.array(about)}, **named)
        # What claims a later step could not be read, or this run would have gone on from there.
        kept = {path.stem for path in [path for path in self._paths() if steps_of(path) <= step][:_KEPT]}
        for file in self._run.last.glob("step-*.*"):
            if file.stem not in kept:
                file.unlink(missing_ok=True)

    def newest(self) -> tuple[dict[str, Any] | None, list[str]]:
        """Returns the newest state that can be read, None where there is none, and a line for each that cannot.

        Raises:
            ValueError: If there are some and none can be read.
        """
        said: list[str] = []
        for path in self._paths():
            try:
                return _read(path), said
            except (ValueError, OSError) as error:
                said.append(f"{printable(error).rstrip('.')}. The checkpoint before it is taken.")
        if said:
            raise bad_data(
                f"Run {shown(str(self._run.path))}", "none of its checkpoints can be read",
                f"Remove {printable(self._run.last)} to begin it anew.",
            )  # fmt: skip
        return None, said

    def restore_best(self, step: int) -> None:
        """Makes the model that was the best after that step the run's best model."""
        best = self._run.last / f"step-{step}.keras"
        if best.exists() and not (self._run.model.exists() and best.samefile(self._run.model)):
            with _atomic.replacing(self._run.model) as beside:
                shutil.copyfile(best, beside)

    def _paths(self) -> list[Path]:
        """Returns the files of states, the newest first."""
        return sorted(
            (path for path in self._run.last.glob("step-*.npz") if steps_of(path)), key=steps_of, reverse=True
        )


def pack(value: Any, arrays: list[np.ndarray]) -> Any:
    """Returns nested containers of plain values, arrays and operations of Keras as JSON has them.

    Args:
        value: What is packed.
        arrays: Takes the arrays, in whose places their numbers stand.

    Raises:
        TypeError: If there is something else in it.
    """
    if isinstance(value, np.generic):
        value = value.item() if value.dtype.kind in "biufU" else np.asarray(value)
    if type(value) in _PLAIN:
        return value
    if isinstance(value, np.ndarray):
        # The short floats are no numbers to NumPy's files.
        arrays.append(value if value.dtype.kind in "biufc" else value.astype(np.float32))
        return {"array": len(arrays) - 1}
    if type(value) in (list, tuple):
        items = [pack(item, arrays) for item in value]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict):
        return {"dict": [[pack(key, arrays), pack(item, arrays)] for key, item in value.items()]}
    name = getattr(value, "__name__", "")
    if getattr(keras.ops, name, None) is value:
        return {"op": name}
    raise TypeError(f"{shown(value)} is no plain value")


def unpack(packed: Any, arrays: list[np.ndarray]) -> Any:
    """Returns what `pack` was given."""
    if isinstance(packed, list):
        return [unpack(item, arrays) for item in packed]
    if not isinstance(packed, dict):
        return packed
    ((kind, content),) = packed.items()
    if kind == "array":
        return arrays[content]
    if kind == "tuple":
        return tuple(unpack(item, arrays) for item in content)
    if kind == "dict":
        return {unpack(key, arrays): unpack(item, arrays) for key, item in content}
    return getattr(keras.ops, content)


def _read(path: Path) -> dict[str, Any]:
    owner = f"Checkpoint {shown(str(path))}"
    names = array_names(path, owner=owner)
    arrays = read_arrays(path, names, owner=owner)
    try:
        about = json.loads(str(arrays.pop(_ABOUT)))
        state = unpack(about, [arrays[str(index)] for index in range(len(arrays))])
        if not state.keys() >= KEYS:
            raise KeyError
        return state
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise bad_data(owner, f"it does not hold what this version writes ({type(error).__name__})") from None


def _link(file: Path, name: Path) -> None:
    """Gives a file, which is only ever replaced as a whole, another name."""
    name.unlink(missing_ok=True)
    try:
        os.link(file, name)
    except OSError:  # a file system without links
        with suppress(FileNotFoundError), _atomic.replacing(name) as beside:
            shutil.copyfile(file, beside)
