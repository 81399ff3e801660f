"""An exported model, run by the runtime of its format, with one call for every format."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_residual._arguments import whole_number
from keras_residual._errors import bad_argument, listed, shown
from keras_residual._optional import check_installed
from keras_residual.deploy.formats import FORMATS, format_of, path_of
from keras_residual.deploy.formats.base import NOTE, Program
from keras_residual.deploy.signature import Port

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
        self.note: Mapping[str, Any] = _checked(program.note)
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
        named = self._program.named and {port.name for port in noted} == set(places)
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
            ValueError: If the inputs are not those of the model, or hold numbers that its dtypes do not, such as
                fractions for pictures of whole numbers 0..255.
        """
        batch_size = whole_number(_OWNER, "batch_size", batch_size)
        arrays = self._arrays(x)
        size, rows = self.inputs[0].shape[0] or batch_size, len(arrays[0])
        if not rows:  # some runtimes take no empty batch: the shapes are those of a row of zeros
            arrays = [np.zeros((1, *array.shape[1:]), array.dtype) for array in arrays]
        order, found = np.argsort(self._given), []  # the file's inputs, by their places in the model
        for start in range(0, len(arrays[0]), size):
            part = [array[start : start + size] for array in arrays]
            missing = size - len(part[0]) if self.inputs[0].shape[0] else 0
            if missing:
                part = [np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) for array in part]
            outputs = self._program.run([part[index] for index in order])
            outputs = [outputs[place] for place in self._made]
            for port, output in zip(self.outputs, outputs, strict=True):
                if not isinstance(output, np.ndarray) or not output.ndim:
                    rule = "a model of which each output is an array with the rows first"
                    what = getattr(output, "shape", type(output).__name__)
                    raise bad_argument(_OWNER, "path", rule, str(self.path), f"Its {port.name} is {what}.")
            found.append([output[: size - missing] if missing else output for output in outputs])
        joined = [np.concatenate(parts)[:rows] for parts in zip(*found, strict=True)]
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
        arrays = [port.array(_OWNER, "x", value) for value, port in zip(given, self.inputs, strict=True)]
        for array, port in zip(arrays, self.inputs, strict=True):
            if not port.takes(array.shape):
                raise bad_argument(_OWNER, "x", f"for {port.name} of shape {port.shape}", array.shape, "It is shown.")
            if len(array) != len(arrays[0]):
                raise bad_argument(_OWNER, "x", "as many rows of each input", [len(a) for a in arrays])
        return arrays

    def __repr__(self) -> str:
        return f"<Exported {self.format} {self.path.name!r}: {self.inputs} -> {self.outputs}>"


def _checked(note: Any) -> Mapping[str, Any]:
    """Returns a note, which may be another program's, as far as it is looked at.

    Raises:
        ValueError: If it is none of `export`.
    """
    right = isinstance(note, Mapping)
    for kind in ("inputs", "outputs") if right else ():
        ports = note.get(kind, [])
        right = right and isinstance(ports, list) and all(_is_port(port) for port in ports)
    for names in (note.get("labels"), note.get("features")) if right else ():
        right = right and (names is None or (isinstance(names, list) and all(isinstance(one, str) for one in names)))
    if not right:
        raise ValueError(f"its note, {NOTE}, is not as `export` writes it. Export the model again")
    return note


def _is_port(port: Any) -> bool:
    if not isinstance(port, Mapping) or not isinstance(port.get("shape"), list) or not port["shape"]:
        return False
    texts = (port.get("name"), port.get("dtype"), port.get("own_name") or "")
    sizes = (size for size in port["shape"] if size is not None)
    return all(isinstance(text, str) for text in texts) and all(type(size) is int and size >= 0 for size in sizes)


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
        threads: Number of threads, up to 1,024; None for the runtime's own choice.

    Raises:
        TypeError: For an argument of the wrong type.
        FileNotFoundError: If there is no such file.
        ImportError: If the runtime is not installed; says how to install it.
        ValueError: If it is no file of that format, or takes something else than rows of numbers.

    Example:
        >>> kr.load_exported("model.onnx").predict(pictures)  # doctest: +SKIP
    """
    path = path_of(_OWNER, path)
    if not os.path.exists(path):  # noqa: PTH110 - that of Path raises for a name that is too long
        raise FileNotFoundError(f"There is no file {shown(str(path))}.")
    threads = None if threads is None else whole_number(_OWNER, "threads", threads, most=1024)
    made = format_of(_OWNER, path, format)
    for module in made.runs_with:
        check_installed(module, extra=made.extra)
    try:
        found = Exported(path, made.name, made.load(path, threads))
    except Exception as error:
        rule = f"a file that {made.name} can run"
        raise bad_argument(_OWNER, "path", rule, str(path), f"{type(error).__name__}: {error}") from error
    for port in found.inputs:
        if not port.shape or not _is_number(port.dtype):
            rule = "a model that takes rows of numbers"
            way_out = f"Its input {port.name} is {port.dtype} of shape {port.shape or 'unknown or ()'}."
            raise bad_argument(_OWNER, "path", rule, str(path), way_out)
    return found


def _is_number(dtype: str) -> bool:
    try:
        return np.dtype(dtype).kind in "biuf"
    except TypeError:
        return dtype == "bfloat16"
