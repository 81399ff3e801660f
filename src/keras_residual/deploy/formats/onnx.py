"""ONNX files: written by the PyTorch backend, optimised once, run by ONNX Runtime."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_residual._backend.export import exporter
from keras_residual._optional import require
from keras_residual.deploy.formats.base import NOTE, Format, Options, Port, Program
from keras_residual.deploy.formats.onnx_graph import rearrange
from keras_residual.deploy.signature import Signature

_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}


class Onnx(Format):
    """Read by ONNX Runtime, OpenVINO, TensorRT, Triton, KServe and browsers."""

    name = "onnx"
    suffix = ".onnx"
    writer = "program"
    writes_with = ("onnx", "onnxscript", "onnxruntime")
    runs_with = ("onnxruntime",)
    companions = (".onnx.data",)
    triton = "onnxruntime"
    without_bfloat16 = "ONNX Runtime has no bfloat16 arithmetic on a processor"
    takes_int8 = True

    def write(self, model: keras.Model, signature: Signature, path: Path, options: Options) -> None:
        """Writes the file without what its runtime would take out when it loads it."""
        onnx = require("onnx", extra="export")
        raw = path.with_name(f"raw-{path.name}")
        write_raw(model, signature, raw, options)
        _optimize(raw, path)
        _check_opset(path, options.opset)
        made = onnx.load(path)
        rearrange(made.graph)
        onnx.save(made, path)
        _optimize(path, path)
        for left in path.parent.glob(f"{raw.name}*"):
            left.unlink()
        if options.batch_size is None:
            _name_batch(path)

    def load(self, path: Path, threads: int | None = None) -> Program:
        """Returns a session of ONNX Runtime."""
        return _Session(path, threads)

    def annotate(self, path: Path, note: Mapping[str, Any]) -> None:
        """Puts the note into the file's metadata."""
        onnx = require("onnx", extra="export")
        made = onnx.load(path, load_external_data=False)
        onnx.helper.set_model_props(made, {NOTE: json.dumps(note)})
        onnx.save(made, path)

    def quantize(self, path: Path, out: Path, batches: Sequence[Sequence[np.ndarray]], *, vnni: bool) -> None:
        """Writes the int8 model: u8 activations and s8 weights a channel, as QuantizeLinear and DequantizeLinear."""
        quantization = require("onnxruntime.quantization", extra="export")
        names = [port.name for port in self.load(path).inputs]
        with tempfile.TemporaryDirectory(dir=path.parent) as folder, _without_advice():
            prepared = Path(folder, "prepared.onnx")
            quantization.quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(prepared),
                str(out),
                _reader(quantization, names, batches),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                # Without VNNI, sums of two products of 8 bits overflow 16 bits.
                reduce_range=not vnni,
            )


def write_raw(model: keras.Model, signature: Signature, path: Path, options: Options) -> None:
    """Writes the file as PyTorch makes it."""
    tools = exporter(Onnx.writer)
    tools.write_onnx(tools.program_of(model, signature, options.batch_size), path, signature, options.opset)


class _Session(Program):
    def __init__(self, path: Path, threads: int | None) -> None:
        runtime = require("onnxruntime", extra="export")
        settings = runtime.SessionOptions()
        settings.log_severity_level = 3
        if threads is not None:
            settings.intra_op_num_threads = settings.inter_op_num_threads = threads
        self._session = runtime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        self.inputs = [_port(node) for node in self._session.get_inputs()]
        self.outputs = [_port(node) for node in self._session.get_outputs()]
        found = self._session.get_modelmeta().custom_metadata_map.get(NOTE)
        self.note = json.loads(found) if found else {}

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return self._session.run(None, dict(zip((port.name for port in self.inputs), arrays, strict=True)))


def _optimize(source: Path, out: Path) -> None:
    """Writes a file as ONNX Runtime optimizes it for any machine; OpenVINO would keep transposes that it takes out."""
    runtime = require("onnxruntime", extra="export")
    settings = runtime.SessionOptions()
    settings.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    settings.optimized_model_filepath = str(out)
    settings.log_severity_level = 3
    runtime.InferenceSession(str(source), settings, providers=["CPUExecutionProvider"])


def _check_opset(path: Path, asked: int) -> None:
    """Raises where the writer has silently taken other operators than those that were asked for."""
    onnx = require("onnx", extra="export")
    found = {one.domain: one.version for one in onnx.load(path, load_external_data=False).opset_import}[""]
    if found != asked:
        raise ValueError(f"these versions of PyTorch and onnxscript write opset {found}, not {asked}. Pass {found}")


@contextmanager
def _without_advice() -> Iterator[None]:
    """Within the block ONNX Runtime logs nothing by Python's root logger, as it does about how it was called."""
    root, handler = logging.getLogger(), logging.NullHandler()

    def is_ours(record: logging.LogRecord) -> bool:
        return "onnxruntime" not in record.pathname

    root.addHandler(handler)  # without one, the first message would install one that stays
    root.addFilter(is_ours)
    try:
        yield
    finally:
        root.removeFilter(is_ours)
        root.removeHandler(handler)


def _port(node: Any) -> Port:
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    dtype = _DTYPES.get(node.type) or node.type.removeprefix("tensor(").removesuffix(")")
    return Port(node.name, shape, dtype)


def _name_batch(path: Path) -> None:
    """Gives the axis of the batch its name, where the writer has numbered what is not known."""
    onnx = require("onnx", extra="export")
    made = onnx.load(path, load_external_data=False)
    first = made.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*made.graph.input, *made.graph.output, *made.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param == first:
                axis.dim_param = "batch"
    onnx.save(made, path)


def _reader(quantization: Any, names: Sequence[str], batches: Sequence[Sequence[np.ndarray]]) -> Any:
    """Returns the batches in the form in which ONNX Runtime asks for them."""

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left: Iterator[Any] = iter(batches)

        def get_next(self) -> Any:
            batch = next(self.left, None)
            return None if batch is None else dict(zip(names, batch, strict=True))

    return Reader()
