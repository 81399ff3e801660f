"""`.pt2` files: a program of `torch.export`, for those who stay in PyTorch without Keras."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_residual._backend.export import exporter
from keras_residual.deploy.formats.base import NOTE, Format, Options, Port, Program
from keras_residual.deploy.signature import Signature


class Pt2(Format):
    """Loaded by `torch.export.load(path).module()`; AOTInductor and ExecuTorch start from it."""

    name = "pt2"
    suffix = ".pt2"
    writer = "program"

    def write(self, model: keras.Model, signature: Signature, path: Path, options: Options) -> None:
        """Writes the program."""
        tools = exporter(self.writer)
        tools.write_pt2(tools.program_of(model, signature, options.batch_size), path)

    def load(self, path: Path, threads: int | None = None) -> Program:
        """Returns the program as PyTorch runs it."""
        return _Loaded(path, threads)

    def annotate(self, path: Path, note: Mapping[str, Any]) -> None:
        """Puts the note among the extra files of the archive."""
        with zipfile.ZipFile(path, "a") as archive:
            root = archive.namelist()[0].partition("/")[0]
            archive.writestr(f"{root}/extra/{NOTE}", json.dumps(note))


class _Loaded(Program):
    named = False

    def __init__(self, path: Path, threads: int | None) -> None:
        self._loaded = exporter(Pt2.writer).LoadedPt2(path, NOTE, threads)
        self.note = json.loads(self._loaded.note) if self._loaded.note else {}
        inputs, outputs = self._loaded.ports()
        self.inputs = [Port(f"input_{index}", *described) for index, described in enumerate(inputs)]
        self.outputs = [Port(f"output_{index}", *described) for index, described in enumerate(outputs)]

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return self._loaded.run(arrays)
