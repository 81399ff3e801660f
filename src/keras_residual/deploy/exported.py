"""An exported model, run by the runtime of its format, with one call for every format."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_residual._errors import bad_argument, listed
from keras_residual._optional import require
from keras_residual.deploy.formats import FORMATS, format_of
from keras_residual.deploy.formats.base import Program
from keras_residual.deploy.signature import Port
from keras_residual.layers._checks import whole_number

_OWNER = "load_exported"


class Exported:
    """A model in a file of another runtime. Made by `load_exported`.

    Attributes:
        path: The file.
        format: Name of its format.
        inputs: Name, shape and dtype of each input; the batch is the first axis, None where it may be any.
        outputs: The same of each output.
        labels: Names of the classes, or None.
        features: Names of the columns, or None.
        ending: What the output of a classifier is, `"logits"`, `"softmax"` or `"sigmoid"`; None where nobody knows.
        note: What `export` wrote about the model; empty for a file that it did not write.
    """

    def __init__(self, path: Path, format: str, program: Program) -> None:
        self.path, self.format, self._program = path, format, program
        self.note: Mapping[str, Any] = program.note
        self.inputs, self._given = self._ports("inputs")
        self.outputs, self._made = self._ports("outputs")
        self.labels: list[str] | None = self.note.get("labels")
        self.features: list[str] | None = self.note.get("features")
        self.ending: str | None = self.note.get("ending")

    @property
    def input_shape(self) -> Any:
        """The shape of the input, as a Keras model has it; a list where there are several."""
        return _shape_of(self.inputs)

    @property
    def output_shape(self) -> Any:
        """The shape of the output, as a Keras model has it; a list where there are several."""
        return _shape_of(self.outputs)

    def _ports(self, kind: str) -> tuple[list[Port], list[int]]:
        """Returns the ports as the model has them, and where in the file each of them is."""
        found = list(getattr(self._program, kind))
        noted = [
            Port(port["name"], tuple(port["shape"]), port["dtype"], port.get("own_name"))  # older files lack the last
            for port in self.note.get(kind, ())
        ]
        if len(noted) != len(found):
            return found, list(range(len(found)))
        places = {port.name: place for place, port in enumerate(found)}
        # Some formats sort them; one without names of its own has them in the order of the model.
        named = {port.name for port in noted} == set(places)
        return noted, [places[port.name] if named else place for place, port in enumerate(noted)]

    def predict(self, x: Any, batch_size: int = 32) -> Any:
        """Returns the outputs for any number of rows.

        Args:
            x: One array; for several inputs a list in the order of `inputs`, the model's, or a dictionary by the names
                in the file, or by those in the model (`own_name`).
            batch_size: Number of rows that run at once, where the file does not fix it.

        Returns:
            One array, or a dictionary by name where there are several outputs.

        Raises:
            ValueError: If the inputs are not those of the model.
        """
        arrays = self._arrays(x)
        batch_size = whole_number(_OWNER, "batch_size", batch_size)
        size, rows = self.inputs[0].shape[0] or batch_size, len(arrays[0])
        order, found = np.argsort(self._given), []  # the file's inputs, by their places in the model
        for start in range(0, max(rows, 1), size):
            part = [array[start : start + size] for array in arrays]
            missing = size - len(part[0]) if self.inputs[0].shape[0] else 0
            if missing:
                part = [np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) for array in part]
            outputs = self._program.run([part[index] for index in order])
            outputs = [outputs[place] for place in self._made]
            found.append([output[: size - missing] if missing else output for output in outputs])
        joined = [np.concatenate(parts) for parts in zip(*found, strict=True)]
        return joined[0] if len(joined) == 1 else dict(zip((port.name for port in self.outputs), joined, strict=True))

    def _arrays(self, x: Any) -> list[np.ndarray]:
        names = [port.name for port in self.inputs]
        if isinstance(x, Mapping):
            own = [port.name if port.own_name is None else port.own_name for port in self.inputs]
            known = next(
                (keys for keys in (names, own) if len(x) == len(set(keys)) == len(keys) == len(set(x) & set(keys))),
                None,
            )
            if known is None:
                rule = f"a dictionary with {' or with '.join(dict.fromkeys((listed(names), listed(own))))}"
                raise bad_argument(_OWNER, "x", rule, sorted(map(str, x)))
            given: Sequence[Any] = [x[name] for name in known]
        elif isinstance(x, (list, tuple)) and len(names) > 1:
            given = x
        else:
            given = [x]
        if len(given) != len(names):
            rule = f"{len(names)} arrays in a list, for {', '.join(names)}"
            raise bad_argument(_OWNER, "x", rule, x, f"There are {len(given)}.")
        arrays = [_array(value, port) for value, port in zip(given, self.inputs, strict=True)]
        for array, port in zip(arrays, self.inputs, strict=True):
            if not port.takes(array.shape):
                raise bad_argument(_OWNER, "x", f"for {port.name} of shape {port.shape}", array.shape, "It is shown.")
            if len(array) != len(arrays[0]):
                raise bad_argument(_OWNER, "x", "as many rows of each input", [len(a) for a in arrays])
        return arrays

    def __repr__(self) -> str:
        return f"<Exported {self.format} {self.path.name!r}: {self.inputs} -> {self.outputs}>"


def _array(value: Any, port: Port) -> np.ndarray:
    try:
        return np.ascontiguousarray(value, port.dtype)
    except (TypeError, ValueError, OverflowError) as error:
        rule = f"what makes an array of {port.dtype}, for {port.name} of shape {port.shape}"
        raise bad_argument(_OWNER, "x", rule, value, f"{error}.") from None


def _shape_of(ports: Sequence[Port]) -> Any:
    return ports[0].shape if len(ports) == 1 else [port.shape for port in ports]


def is_exported(path: Path) -> bool:
    """Returns whether a path looks like an exported model, by its suffix or as a SavedModel."""
    return any(
        made.is_made(path) and (path.suffix == made.suffix if made.suffix else True) for made in FORMATS.values()
    )


def load_exported(path: str | os.PathLike[str], format: str | None = None, *, threads: int | None = None) -> Exported:
    """Loads what `export` wrote, or another model in one of its formats.

    Args:
        path: The file, or the folder of a SavedModel.
        format: Name of the format; None to go by the suffix.
        threads: Number of threads; None for the runtime's own choice.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If the runtime is not installed; says how to install it.
        ValueError: If it is no file of that format.

    Example:
        >>> kr.load_exported("model.onnx").predict(pictures)  # doctest: +SKIP
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    made = format_of(_OWNER, path, format)
    for module in made.runs_with:
        require(module, extra=made.extra)
    try:
        program = made.load(path, threads)
    except Exception as error:
        rule = f"a file that {made.name} can run"
        raise bad_argument(_OWNER, "path", rule, str(path), f"{type(error).__name__}: {error}") from error
    return Exported(path, made.name, program)
