"""`export`: a model as a file of another runtime, which is run and compared before it is called done."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_residual import _backend
from keras_residual._arguments import number, positive, whole_number
from keras_residual._atomic import folder_beside, is_disk_full
from keras_residual._backend.export import EXPORTERS
from keras_residual._errors import bad_argument, printable, shown, wrong_type
from keras_residual._version import __version__
from keras_residual.deploy import place, triton, verify
from keras_residual.deploy.child import ExportError, reason_of, write_in_child
from keras_residual.deploy.formats import format_of, path_of
from keras_residual.deploy.formats.base import OPSETS, Format, Options, compute_dtypes, computes_in_bfloat16
from keras_residual.deploy.int8 import quantized, rows_of
from keras_residual.deploy.pictures import as_layer, takes_pictures
from keras_residual.deploy.signature import OWNER, Signature, check_finite, signature_of
from keras_residual.deploy.verify import BATCH_SIZES, BOUNDS, Check
from keras_residual.models.outputs import declared_ending

_NO_ROOM = 4096
"""Bytes of a disk that is full; some writers do not say why they failed."""


@dataclass(frozen=True)
class ExportReport:
    """What `export` wrote.

    Args:
        path: The file, or the folder of a SavedModel.
        format: Name of the format.
        bytes: Size of all that belongs to it.
        check: How far the file in float is from the model.
        agreement: Of an int8 file, how far it agrees with the model on rows that it was not calibrated on, in `[0, 1]`.
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
    preprocessing: Any = None,
    labels: Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    samples: Any = None,
    bound: float | None = None,
    overwrite: bool = False,
    find_difference: bool = False,
    serve_folder: str | os.PathLike[str] | None = None,
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
            or of numbers `1 - RMS difference / deviation`, of the worst of several.
        vnni: Whether the processor that runs the int8 ONNX file has AVX-512 VNNI or newer; None for what this one has.
        opset: Version of the ONNX operators, 18 to 25, for ONNX and OpenVINO.
        batch_size: The one batch size that the file takes; None for any.
        preprocessing: What turns pictures into the model's input: a layer or the name of weights, as
            `keras_residual.preprocessing` takes it. The file then takes pictures 0..255 of the model's size, and
            scales them itself; resizing and cropping stay outside, and are noted.
        labels: Names of the classes.
        features: Names of the columns, of a model of table rows.
        samples: One batch of inputs, of finite numbers, that the file is tried with; needed where the model's class has
            a `call` of its own, or an input has sizes that are not known. None for random ones.
        bound: Largest difference over the deviation of the output; None for 2e-4 in float32.
        overwrite: Whether something at `path` may be replaced; it is, once the new file is good.
        find_difference: Whether to look for the first layer at which a file that fails differs. Takes time.
        serve_folder: A model repository of NVIDIA Triton that the model is put into as well (`"onnx"` and
            `"openvino"`), under the name of the file, with its configuration, labels and note. It may exist and hold
            other models; one of the same name is replaced only with `overwrite`, and only if it was written here.
        timeout: Seconds for a child process.

    Returns:
        What was written, with the figures.

    Raises:
        TypeError: For an argument of the wrong type.
        ValueError: For a bad argument, or a model that gives no numbers for the rows that the file is tried with.
        FileExistsError: If there is something at `path`.
        ImportError: If a package or a framework is missing; says how to install it.
        ExportError: If the model cannot be written, or the file answers differently. Nothing is left behind then, and
            what was at `path` is still there.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), kr.Residual(keras.layers.Dense(4))])
        >>> kr.export(model, "model.onnx").format  # doctest: +SKIP
        'onnx'
    """
    start, target = time.monotonic(), path_of(OWNER, path)
    if not isinstance(model, keras.Model):
        raise wrong_type(OWNER, "model", "a keras.Model", model)
    if not model.built:
        raise bad_argument(OWNER, "model", "built", model.name, "Call it on a batch first.")
    agreement = number(OWNER, "agreement", agreement, "a share in [0, 1]", lambda share: 0 <= share <= 1)
    bound = None if bound is None else number(OWNER, "bound", bound, "a number of at least 0", lambda most: most >= 0)
    batch_size = None if batch_size is None else whole_number(OWNER, "batch_size", batch_size)
    opset = whole_number(OWNER, "opset", opset, *OPSETS)
    timeout = positive(OWNER, "timeout", timeout)
    served = None if serve_folder is None else Path(serve_folder)
    made = check_call(target, format, int8=int8 is not None, overwrite=overwrite, serve_folder=served)
    if made.without_bfloat16 and computes_in_bfloat16(model):
        rule = f"of another dtype policy, since {made.without_bfloat16}"
        way_out = (
            "Make it again under keras.config.set_dtype_policy('float32') and give it these weights by set_weights, or "
            "export to .pt2."
        )
        raise bad_argument(OWNER, "model", rule, model.dtype_policy.name, way_out)
    whole = model if preprocessing is None else takes_pictures(model, preprocessing)
    signature = signature_of(whole, samples, batch_size)
    batches = _batches(signature, samples, batch_size)
    rows = None if int8 is None else rows_of(int8, signature)
    expected = [verify.answers(whole, signature, batch) for batch in batches]
    verify.check_comparable(signature, expected)
    limit = max(BOUNDS.get(dtype, 2e-4) for dtype in compute_dtypes(model)) if bound is None else bound
    note: dict[str, Any] = {
        "format": made.name,
        "model": model.name,
        "inputs": [asdict(port) for port in signature.inputs],
        "outputs": [asdict(port) for port in signature.outputs],
        "labels": None if labels is None else list(labels),
        "features": None if features is None else list(features),
        "ending": declared_ending(model),
        "preprocessing": _described(preprocessing),
        "versions": _versions(made),
    }
    # The inner one looks at the disk before the folder is gone.
    with _explained(made, target), folder_beside(target) as folder, _explained(made, target):
        written = folder / target.name
        _write(whole, signature, made, written, Options(opset, batch_size), folder, timeout)
        check = verify.compare(made.load(written), signature, batches, expected, limit)
        if not check.passed:
            where = _first_difference(whole, made, batches, limit, folder, timeout) if find_difference else ""
            raise ExportError(f"The {made.name} file answers otherwise than the model: {check}. {where}It is not kept.")
        note["check"] = asdict(check)
        share = None
        if rows is not None:
            written, share, words = quantized(whole, signature, made, written, rows, vnni)
            if share < agreement:
                raise ExportError(
                    f"The int8 {made.name} agrees with the model in {share:.1%}, under the bound of {agreement:.1%}. "
                    f"{words} It is not kept. Calibrate on more and more typical rows, or pass a lower `agreement=`."
                )
            note["int8"] = {"agreement": share}
        made.annotate(written, note)
        final = made.load(written)  # once more: the note is in it now
        if served is None:
            place.move(made, written, target, note)
        else:
            files, ports = place.files_of(made, written), (final.inputs, final.outputs)
            with triton.serve_folder(made, files, ports, note, target, served) as publish:
                place.move(made, written, target, note)
                publish()
    size = sum(file.stat().st_size for file in place.files_of(made, target))
    return ExportReport(target, made.name, size, check, share, time.monotonic() - start)


def check_call(
    path: Path, format: str | None, *, int8: bool, overwrite: bool, serve_folder: Path | None = None
) -> Format:
    """Returns the format, once all is there that the export needs beside the model.

    Args:
        path: As `export` takes it.
        format: As `export` takes it.
        int8: Whether an int8 model is asked for.
        overwrite: As `export` takes it.
        serve_folder: As `export` takes it.

    Raises:
        ValueError: For a bad path or format.
        OSError: If the place is not free.
        ImportError: If a package or a framework is missing.
    """
    made = format_of(OWNER, path, format)
    if int8 and not made.takes_int8:
        rule = "None where the format is neither 'onnx' nor 'openvino'"
        raise bad_argument(OWNER, "int8", rule, made.name, "Export to one of these, or leave int8 out.")
    made.check_installed(int8=int8)
    place.check_free(made, path, overwrite=overwrite)
    if serve_folder is not None:
        triton.check_serve_folder(made, path, serve_folder, overwrite=overwrite)
    return made


@contextmanager
def _explained(made: Format, target: Path) -> Iterator[None]:
    """Around the work: whatever goes wrong becomes an ExportError in plain words."""
    try:
        yield
    except Exception as error:
        if is_disk_full(error) or shutil.disk_usage(target.parent).free < _NO_ROOM:
            raise ExportError(
                f"The disk of {shown(str(target.parent))} is full, so the {made.name} model was not written. "
                "Free space, or choose another path."
            ) from error
        if isinstance(error, ExportError):
            raise
        if isinstance(error, OSError):
            where = printable(error.filename or target)
            raise ExportError(
                f"The {made.name} model cannot be written: {error.strerror or error} ({where}). Choose another path."
            ) from error
        text = printable(f"{type(error).__name__}: {error}", 1000)
        raise ExportError(f"Exporting to {made.name} failed: {text}") from error


def _batches(signature: Signature, samples: Any, batch_size: int | None) -> list[list[np.ndarray]]:
    sizes = BATCH_SIZES if batch_size is None else (batch_size,)
    if samples is None:
        return [signature.samples(size) for size in sizes]
    arrays, ports = keras.tree.flatten(samples), signature.inputs
    if len(arrays) != len(ports):
        rule = f"a batch for each input, {', '.join(port.name for port in ports)}"
        raise bad_argument(OWNER, "samples", rule, samples, f"There are {len(arrays)}.")
    typed = [port.array(OWNER, "samples", array) for array, port in zip(arrays, ports, strict=True)]
    for array, port in zip(typed, ports, strict=True):
        if not port.takes(array.shape) or len(array) != len(typed[0]) or not len(array):
            rule = f"one or more rows for {port.name} of shape {port.shape}, as many of each input"
            raise bad_argument(OWNER, "samples", rule, array.shape, "The shape is shown.")
    check_finite("samples", typed, ports)
    return [[np.resize(array, (size, *array.shape[1:])) for array in typed] for size in sizes]


def _write(
    model: keras.Model, signature: Signature, made: Format, path: Path, options: Options, folder: Path, timeout: float
) -> None:
    backends = EXPORTERS[made.writer][1]
    if _backend.BACKEND in backends:
        try:
            made.write(model, signature, path, options)
        except Exception as error:
            if isinstance(error, OSError) or is_disk_full(error):
                raise
            text = printable(reason_of(error), 1000)
            raise ExportError(f"Writing {made.name} by {_backend.BACKEND} failed: {text}") from error
    else:
        talk = Path(tempfile.mkdtemp(dir=folder))
        write_in_child(model, signature, made, path, options, backend=backends[0], folder=talk, timeout=timeout)
        shutil.rmtree(talk)


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


def _described(preprocessing: Any) -> dict[str, Any] | None:
    if preprocessing is None:
        return None
    layer = as_layer(preprocessing)
    config = layer.get_config()
    names = ("size", "crop_pct", "crop_mode", "interpolation", "mean", "std")
    return {**{name: config[name] for name in names}, "standardised_in_the_file": True}


def _versions(made: Format) -> dict[str, str]:
    modules = ["keras", *made.writes_with, *made.runs_with, *EXPORTERS[made.writer][1]]
    # A module comes in packages of several names, such as `tensorflow-cpu`.
    packages = metadata.packages_distributions()
    found = {module: metadata.version(packages[module][0]) for module in dict.fromkeys(modules) if module in packages}
    return {"keras-residual": __version__, **found}
