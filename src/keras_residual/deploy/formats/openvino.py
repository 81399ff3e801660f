"""OpenVINO's intermediate representation: made from an ONNX file, run by OpenVINO."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_residual._optional import require
from keras_residual.deploy.formats.base import NOTE, Format, Options, Port, Program, computes_in_bfloat16
from keras_residual.deploy.formats.onnx import Onnx, write_raw
from keras_residual.deploy.signature import Signature

_DTYPES = {"f32": "float32", "f64": "float64", "f16": "float16", "i64": "int64", "i32": "int32", "boolean": "bool"}
_DTYPES |= {"u8": "uint8", "i8": "int8", "bf16": "bfloat16"}


class OpenVino(Format):
    """The fastest way on Intel processors; a `.xml` with the graph, and a `.bin` with the weights beside it."""

    name = "openvino"
    suffix = ".xml"
    extra = "openvino"
    writer = Onnx.writer
    writes_with = ("openvino", *Onnx.writes_with)
    runs_with = ("openvino",)
    quantizes_with = ("nncf",)
    companions = (".bin",)
    triton = "openvino"
    takes_int8 = True

    def write(self, model: keras.Model, signature: Signature, path: Path, options: Options) -> None:
        """Writes both files, with the weights in the precision that they have."""
        onnx = path.with_name("for-openvino.onnx")
        # What ONNX Runtime takes out it has to run, and it has no bfloat16.
        (write_raw if computes_in_bfloat16(model) else Onnx().write)(model, signature, onnx, options)
        openvino = _openvino()
        # Not `convert_model`, which sends the user's system and its errors to OpenVINO's makers.
        openvino.save_model(openvino.Core().read_model(str(onnx)), str(path), compress_to_fp16=False)
        for left in path.parent.glob(f"{onnx.name}*"):
            left.unlink()

    def load(self, path: Path, threads: int | None = None) -> Program:
        """Returns the model, compiled for the processor."""
        return _Compiled(path, threads)

    def annotate(self, path: Path, note: Mapping[str, Any]) -> None:
        """Puts the note into the `rt_info` of the graph."""
        openvino = _openvino()
        made = openvino.Core().read_model(str(path))
        made.set_rt_info(json.dumps(note), NOTE)
        beside = path.with_name("annotated.xml")
        openvino.save_model(made, str(beside), compress_to_fp16=False)
        del made  # it reads its weights from the file that is replaced now
        beside.replace(path)
        beside.with_suffix(".bin").replace(path.with_suffix(".bin"))

    def quantize(self, path: Path, out: Path, batches: Sequence[Sequence[np.ndarray]], *, vnni: bool) -> None:
        """Writes the int8 model by NNCF; OpenVINO fits it to the processor when it loads it."""
        del vnni
        os.environ["NNCF_CI"] = "1"  # it would tell its makers; this is what it looks at when it is imported
        openvino, nncf = _openvino(), require("nncf", extra="openvino")
        nncf.set_log_level(40)
        made = openvino.Core().read_model(str(path))
        given = nncf.Dataset(list(batches), lambda batch: list(batch))
        with contextlib.redirect_stdout(io.StringIO()):  # progress bars of its own
            quantized = nncf.quantize(made, given, subset_size=len(batches))
        openvino.save_model(quantized, str(out), compress_to_fp16=False)


def _openvino() -> Any:
    """Returns the module, without what it does when it is imported: it tells its makers, in a fork of this process.

    Such a fork hangs where another framework, as JAX, has threads.
    """
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    telemetry = "openvino_telemetry"
    held = {telemetry: sys.modules[telemetry]} if telemetry in sys.modules else {}
    sys.modules[telemetry] = None  # type: ignore[assignment] - as if it were not installed, which it takes well
    try:
        return require("openvino", extra="openvino")
    finally:
        del sys.modules[telemetry]
        sys.modules.update(held)


class _Compiled(Program):
    def __init__(self, path: Path, threads: int | None) -> None:
        openvino = _openvino()
        core = openvino.Core()
        made = core.read_model(str(path))
        # Half precision, which it would take where the processor has it, is another model.
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._compiled = core.compile_model(made, "CPU", settings)
        self.inputs = [_port(port) for port in made.inputs]
        self.outputs = [_port(port) for port in made.outputs]
        self.note = json.loads(made.get_rt_info(NOTE).value) if made.has_rt_info(NOTE) else {}

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        found = self._compiled(list(arrays))
        return [_numbers(np.array(found[index]), port.dtype) for index, port in enumerate(self.outputs)]


def _numbers(array: np.ndarray, dtype: str) -> np.ndarray:
    """Returns an output as NumPy has it, which lacks bfloat16: OpenVINO hands its bits out as those of another type."""
    if dtype != "bfloat16" or array.dtype.itemsize != 2:
        return array
    return (array.view("uint16").astype("uint32") << 16).view("float32")


def _port(port: Any) -> Port:
    shape = tuple(size.get_length() if size.is_static else None for size in port.get_partial_shape())
    return Port(port.get_any_name(), shape, _DTYPES.get(port.get_element_type().to_string(), "float32"))
