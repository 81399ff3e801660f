"""LiteRT files (TensorFlow Lite): phones and small machines."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_residual._backend.export import exporter
from keras_residual._optional import require
from keras_residual.deploy.formats.base import NOTE, Format, Options, Port, Program
from keras_residual.deploy.signature import Signature


class LiteRt(Format):
    """Run by LiteRT's interpreter, whose batch is set by resizing the inputs."""

    name = "litert"
    suffix = ".tflite"
    extra = "litert"
    writer = "graph"
    runs_with = ("ai_edge_litert",)
    without_bfloat16 = "LiteRT's own operators take none of bfloat16"

    def write(self, model: keras.Model, signature: Signature, path: Path, options: Options) -> None:
        """Writes the file, of LiteRT's own operators only."""
        exporter(self.writer).write_litert(model, path, signature)

    def load(self, path: Path, threads: int | None = None) -> Program:
        """Returns the interpreter."""
        return _Interpreter(path, threads)

    def annotate(self, path: Path, note: Mapping[str, Any]) -> None:
        """Appends the note as an associated file, which is an entry of a zip archive behind the model."""
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(NOTE, json.dumps(note))


class _Interpreter(Program):
    def __init__(self, path: Path, threads: int | None) -> None:
        tools = require("ai_edge_litert.interpreter", extra="litert")
        self._interpreter = tools.Interpreter(str(path), num_threads=threads)
        (name,) = self._interpreter.get_signature_list()
        self._runner = self._interpreter.get_signature_runner(name)
        self.inputs = _ports(self._runner.get_input_details())
        self.outputs = _ports(self._runner.get_output_details())
        self.note = {}
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                self.note = json.loads(archive.read(NOTE)) if NOTE in archive.namelist() else {}

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        found = self._runner(**dict(zip((port.name for port in self.inputs), arrays, strict=True)))
        return [found[port.name] for port in self.outputs]


def _ports(details: Mapping[str, Any]) -> list[Port]:
    return [
        Port(
            name,
            tuple(None if size < 0 else int(size) for size in found["shape_signature"]),
            np.dtype(found["dtype"]).name,
        )
        for name, found in details.items()
    ]
