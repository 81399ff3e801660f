"""TensorFlow's SavedModel: a folder, for TensorFlow Serving and all that reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_residual._backend.export import exporter
from keras_residual.deploy.formats.base import NOTE, Format, Options, Port, Program
from keras_residual.deploy.signature import Signature

_NOTE = Path("assets.extra", NOTE)


class SavedModel(Format):
    """Served by TensorFlow Serving; one endpoint, `serving_default`, whose names are those of inputs and outputs."""

    name = "saved_model"
    suffix = ""
    writer = "saved_model"

    def is_made(self, path: Path) -> bool:
        """Returns whether the folder is a SavedModel."""
        return (path / "saved_model.pb").is_file()

    def write(self, model: keras.Model, signature: Signature, path: Path, options: Options) -> None:
        """Writes the folder."""
        exporter(self.writer).write_saved_model(model, path, signature)

    def load(self, path: Path, threads: int | None = None) -> Program:
        """Returns the model as TensorFlow runs it."""
        return _Loaded(path, threads)

    def annotate(self, path: Path, note: Mapping[str, Any]) -> None:
        """Puts the note among the assets."""
        (path / _NOTE).parent.mkdir(exist_ok=True)
        (path / _NOTE).write_text(json.dumps(note), encoding="utf-8")


class _Loaded(Program):
    def __init__(self, path: Path, threads: int | None) -> None:
        tools = exporter(SavedModel.writer)
        if threads is not None:
            tools.use_threads(threads)
        self._loaded = tools.LoadedSavedModel(path)
        self.note = json.loads((path / _NOTE).read_text(encoding="utf-8")) if (path / _NOTE).is_file() else {}
        self.inputs, self.outputs = ([Port(*port) for port in ports] for ports in self._loaded.ports())

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        found = self._loaded.run(dict(zip((port.name for port in self.inputs), arrays, strict=True)))
        return [found[port.name] for port in self.outputs]
