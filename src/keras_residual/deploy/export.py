"""`export`: a model as a file of another runtime, which is run and compared before it is called done."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_residual import _backend
from keras_residual._atomic import write_text
from keras_residual._backend.processor import has_vnni
from keras_residual._errors import bad_argument, shown
from keras_residual._optional import require
from keras_residual.deploy import verify
from keras_residual.deploy.child import ExportError, write_in_child
from keras_residual.deploy.formats import format_of
from keras_residual.deploy.formats.base import Format, Options
from keras_residual.deploy.pictures import as_layer, takes_pictures
from keras_residual.deploy.signature import OWNER, Signature, signature_of
from keras_residual.deploy.verify import BATCH_SIZES, BOUNDS, Check
from keras_residual.models.preprocessing import Preprocessing

LEAST_ROWS = 16
"""Rows that int8 needs: some to calibrate on, some to measure on."""


@dataclass(frozen=True)
class ExportReport:
    """What `export` wrote.

    Args:
        path: The file, or the folder of a SavedModel.
        format: Name of the format.
        bytes: Size of all that belongs to it.
        check: How far the file in float is from the model.
        agreement: Of an int8 file, how far it agrees with the model on rows that it was not calibrated on, up to 1.
        seconds: Time that it took.
    """

    path: Path
    format: str
    bytes: int
    check: Check
    agreement: float | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON has them."""
        return {**asdict(self), "path": str(self.path)}

    def __str__(self) -> str:
        int8 = "" if self.agreement is None else f"; int8 agrees to {self.agreement:.1%}"
        return f"{self.path}: {self.format}, {self.bytes / 1e6:.1f} MB; {self.check}{int8}"


def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    int8: Any = None,
    agreement: float = 0.97,
    vnni: bool | None = None,
    opset: int = 18,
    batch_size: int | None = None,
    preprocessing: Preprocessing | str | None = None,
    labels: Sequence[str] | None = None,
    samples: Any = None,
    bound: float | None = None,
    overwrite: bool = False,
    find_difference: bool = False,
    timeout: float = 1800,
) -> ExportReport:
    """Writes a model for another runtime, runs what was written, and compares it with the model.

    The file is run by its own runtime on batches of 1 and 5, and kept only where no output differs by more than the
    bound. ONNX, OpenVINO and `.pt2` are written by PyTorch, LiteRT and SavedModels by TensorFlow (SavedModels also by
    JAX): in this process where that is its backend, in a child process else, for which the framework must be installed.
    Beside the file lies `<path>.json` with inputs, outputs, labels, preprocessing, versions and the figures of the
    comparison; the file itself holds the same.

    Args:
        model: A built model: Functional, Sequential, or of a class of your own (then pass `samples`).
        path: The file: `.onnx`, `.xml` (OpenVINO), `.tflite` (LiteRT), `.pt2`, or a folder (SavedModel).
        format: `"onnx"`, `"openvino"`, `"litert"`, `"saved_model"` or `"pt2"`; None to go by the suffix.
        int8: Rows of input to calibrate an int8 model on (`"onnx"` and `"openvino"`), as the model is called, at least
            16; None for a float model. A third of them is not calibrated on, and measures the agreement.
        agreement: Least agreement of the int8 model with the model, in `[0, 1]`: the share of rows with the same class,
            or of another output `1 - RMS difference / deviation`.
        vnni: Whether the processor that runs the int8 ONNX file has AVX-512 VNNI or newer; None for what this one has.
        opset: Version of the ONNX operators.
        batch_size: The one batch size that the file takes; None for any.
        preprocessing: What turns pictures into the model's input: a layer or the name of weights, as
            `keras_residual.preprocessing` takes it. The file then takes pictures 0..255 of the model's size, and
            scales them itself; resizing and cropping stay outside, and are noted.
        labels: Names of the classes.
        samples: One batch of inputs that the file is tried with; needed where the model's class has a `call` of its
            own, or an input has sizes that are not known. None for random ones.
        bound: Largest difference over the deviation of the output; None for 2e-4 in float32.
        overwrite: Whether something at `path` may be replaced; it is, once the new file is good.
        find_difference: Whether to look for the first layer at which a file that fails differs. Takes time.
        timeout: Seconds for a child process.

    Returns:
        What was written, with the figures.

    Raises:
        ValueError: For a bad argument.
        FileExistsError: If there is something at `path`.
        ImportError: If a package or a framework is missing; says how to install it.
        ExportError: If the model cannot be written, or the file answers differently. Nothing is left behind then, and
            what was at `path` is still there.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), Residual(keras.layers.Dense(4))])
        >>> export(model, "model.onnx")  # doctest: +SKIP
    """
    start, target = time.monotonic(), Path(path)
    made = format_of(OWNER, target, format)
    _check_call(model, made, target, overwrite, int8, agreement)
    for module in (*made.writes_with, *made.runs_with):
        require(module, extra="export")
    whole = model if preprocessing is None else takes_pictures(model, preprocessing)
    signature = signature_of(whole, samples, batch_size)
    batches = _batches(signature, samples, batch_size)
    expected = [verify.answers(whole, signature, batch) for batch in batches]
    limit = BOUNDS.get(keras.backend.standardize_dtype(model.compute_dtype), 2e-4) if bound is None else bound
    note: dict[str, Any] = {
        "format": made.name,
        "model": model.name,
        "inputs": [asdict(port) for port in signature.inputs],
        "outputs": [asdict(port) for port in signature.outputs],
        "labels": None if labels is None else list(labels),
        "preprocessing": _described(preprocessing),
        "versions": _versions(made),
    }
    with _beside(target) as folder:
        written = folder / target.name
        _write(whole, signature, made, written, Options(opset, batch_size), folder, timeout)
        check = verify.compare(made.load(written), signature, batches, expected, limit)
        if not check.passed:
            where = _first_difference(whole, made, batches, limit, folder, timeout) if find_difference else ""
            raise ExportError(f"The {made.name} file answers otherwise than the model: {check}. {where}It is not kept.")
        note["check"] = asdict(check)
        share = None
        if int8 is not None:
            written, share = _quantized(whole, signature, made, written, int8, vnni)
            if share < agreement:
                raise ExportError(
                    f"The int8 {made.name} agrees with the model in {share:.1%}, under the bound of {agreement:.1%}. "
                    "It is not kept. Calibrate on more and more typical rows, or pass a lower `agreement=`."
                )
            note["int8"] = {"agreement": share}
        made.annotate(written, note)
        made.load(written)  # once more: the note is in it now
        _move(made, written, target, note)
    size = sum(file.stat().st_size for file in _files(made, target))
    return ExportReport(target, made.name, size, check, share, time.monotonic() - start)


def _check_call(model: Any, made: Format, target: Path, overwrite: bool, int8: Any, agreement: float) -> None:
    if not isinstance(model, keras.Model):
        raise bad_argument(OWNER, "model", "a keras.Model", shown(model))
    if not model.built:
        raise bad_argument(OWNER, "model", "built", model.name, "Call it on a batch first.")
    if int8 is not None and not made.takes_int8:
        rule = "None where the format is neither 'onnx' nor 'openvino'"
        raise bad_argument(OWNER, "int8", rule, made.name, "Export to one of these, or leave int8 out.")
    if not 0 <= agreement <= 1:
        raise bad_argument(OWNER, "agreement", "a share in [0, 1]", agreement)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{OWNER}: there is no folder {str(target.parent)!r}. Make it first.")
    taken = next((file for file in (target, _note_path(target)) if os.path.lexists(file)), None)
    if taken is not None and not overwrite:
        raise FileExistsError(f"{OWNER}: {str(taken)!r} exists. Pass overwrite=True, or choose another path.")


def _batches(signature: Signature, samples: Any, batch_size: int | None) -> list[list[np.ndarray]]:
    sizes = BATCH_SIZES if batch_size is None else (batch_size,)
    if samples is None:
        return [signature.samples(size) for size in sizes]
    arrays = [np.asarray(array) for array in keras.tree.flatten(samples)]
    typed = [array.astype(port.dtype) for array, port in zip(arrays, signature.inputs, strict=True)]
    return [[np.resize(array, (size, *array.shape[1:])) for array in typed] for size in sizes]


def _write(
    model: keras.Model, signature: Signature, made: Format, path: Path, options: Options, folder: Path, timeout: float
) -> None:
    backends = _backend.EXPORTERS[made.writer][1]
    _backend.exporter(made.writer)
    if _backend.BACKEND in backends:
        try:
            made.write(model, signature, path, options)
        except Exception as error:
            text = shown(str(error))
            raise ExportError(f"Writing {made.name} failed: {type(error).__name__}: {text}") from error
    else:
        talk = Path(tempfile.mkdtemp(dir=folder))
        write_in_child(model, signature, made, path, options, backend=backends[0], folder=talk, timeout=timeout)
        shutil.rmtree(talk)


def _quantized(
    model: keras.Model, signature: Signature, made: Format, path: Path, rows: Any, vnni: bool | None
) -> tuple[Path, float]:
    """Returns the int8 file, and how far it agrees with the model on rows that it was not calibrated on."""
    arrays = [np.asarray(array) for array in keras.tree.flatten(rows)]
    count = len(arrays[0])
    if count < LEAST_ROWS or any(len(array) != count for array in arrays):
        rule = f"at least {LEAST_ROWS} rows, as many of each input"
        raise bad_argument(OWNER, "int8", rule, [array.shape for array in arrays], "The shapes are shown.")
    order = np.random.default_rng(0).permutation(count)  # rows often come class by class
    held_out, size = order[: count // 3], signature.inputs[0].shape[0] or 8
    typed = [array.astype(port.dtype) for array, port in zip(arrays, signature.inputs, strict=True)]
    calibrated = _in_batches(typed, order[count // 3 :], size)
    out = path.parent / "int8" / path.name
    out.parent.mkdir()
    made.quantize(path, out, calibrated, vnni=has_vnni() if vnni is None else vnni)
    program, pairs = made.load(out), []
    for batch in _in_batches(typed, held_out, size):
        pairs.append((verify.answers(model, signature, batch), verify.run(program, signature, batch)))
    shares = [
        verify.agreement(*(np.concatenate([pair[side][index] for pair in pairs]) for side in (0, 1)))
        for index in range(len(signature.outputs))
    ]
    return out, min(shares)


def _in_batches(arrays: Sequence[np.ndarray], rows: np.ndarray, size: int) -> list[list[np.ndarray]]:
    """Returns the rows in whole batches; the last one is filled up with rows from the start."""
    filled = np.resize(rows, -(-len(rows) // size) * size)
    return [[array[part] for array in arrays] for part in filled.reshape(-1, size)]


def _first_difference(
    model: keras.Model,
    made: Format,
    batches: Sequence[Sequence[np.ndarray]],
    bound: float,
    folder: Path,
    timeout: float,
) -> str:
    """Returns a sentence that names the first layer whose output differs."""
    if not getattr(model, "_nodes", None) or not getattr(model, "operations", None):
        return "Its layers cannot be looked at one by one, since its class has a `call` of its own. "
    tensors = {}
    for operation in model.operations:
        if isinstance(operation, keras.Layer) and not isinstance(operation, keras.layers.InputLayer):
            for index, tensor in enumerate(keras.tree.flatten(operation.output)):
                tensors[f"{operation.name}{f' (output {index})' if index else ''}"] = tensor
    looking = keras.Model(model.input, list(tensors.values()))
    signature = signature_of(looking)
    path = folder / f"layers{made.suffix}"
    _write(looking, signature, made, path, Options(), folder, timeout)
    program = made.load(path)
    expected = [verify.answers(looking, signature, batch) for batch in batches]
    found = [verify.run(program, signature, batch) for batch in batches]
    for name, check in zip(tensors, verify.checks(signature, expected, found, bound), strict=True):
        if not check.passed:
            return f"The first layer that differs is {name!r}: {check}. "
    return "No layer differs by itself. "


def _described(preprocessing: Preprocessing | str | None) -> dict[str, Any] | None:
    if preprocessing is None:
        return None
    layer = as_layer(preprocessing)
    config = layer.get_config()
    names = ("size", "crop_pct", "crop_mode", "interpolation", "mean", "std")
    return {**{name: config[name] for name in names}, "standardised_in_the_file": True}


def _versions(made: Format) -> dict[str, str]:
    packages = ["keras-residual", "keras", *made.writes_with, *made.runs_with, *_backend.EXPORTERS[made.writer][1]]
    found = {}
    for package in dict.fromkeys(packages):
        try:
            found[package] = metadata.version(package.replace("_", "-"))
        except metadata.PackageNotFoundError:
            continue
    return found


# --- Files -----------------------------------------------------------------------------------------------------------


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Yields an empty folder on the file system of the target, which is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=".keras-residual-export-", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _note_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")


def _files(made: Format, path: Path) -> list[Path]:
    """Returns all files that belong to an exported model."""
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file()]
    beside = [path.with_suffix(suffix) for suffix in made.companions]
    return [file for file in (*beside, path) if file.is_file()]


def _move(made: Format, written: Path, target: Path, note: Mapping[str, Any]) -> None:
    """Puts a good file in its place, the note last."""
    if written.is_dir():
        former = written.with_name("former")
        if os.path.lexists(target):
            target.rename(former)
        try:
            written.rename(target)
        except OSError:
            if former.exists():
                former.rename(target)
            raise
    else:
        for file in _files(made, written):
            file.replace(target.with_name(file.name))
    write_text(_note_path(target), json.dumps(note, indent=2, ensure_ascii=False) + "\n")
