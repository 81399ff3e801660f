"""What an export format is: how a model is written in it, and how a file of it is run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

from keras_residual._backend.export import EXPORTERS
from keras_residual._optional import check_installed
from keras_residual.deploy.signature import Port, Signature

NOTE = "keras_residual.json"
"""Name under which a file holds what is known about it, where the format has named entries."""


OPSETS = (18, 25)
"""The lowest and the highest version of the ONNX operators; lower ones PyTorch cannot write."""


@dataclass(frozen=True)
class Options:
    """How a model is written.

    Args:
        opset: Version of the ONNX operators.
        batch_size: The one batch size that the file takes; None for any.
    """

    opset: int = 18
    batch_size: int | None = None


def compute_dtypes(model: keras.Model) -> set[str]:
    """Returns the dtypes in which the layers of a model compute; that of a loaded model itself says nothing of them."""
    return {layer.compute_dtype for layer in model._flatten_layers()}


def computes_in_bfloat16(model: keras.Model) -> bool:
    """Returns whether a layer of a model does."""
    return "bfloat16" in compute_dtypes(model)


class Program(ABC):
    """An exported model, loaded by the runtime of its format."""

    inputs: Sequence[Port]
    outputs: Sequence[Port]
    named: ClassVar[bool] = True
    """Whether the file has names for its ports; else they are told by their order."""
    note: Mapping[str, Any]
    """What `Format.annotate` put into the file; empty where it is another program's."""

    @abstractmethod
    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the outputs for one batch of each input, in the order of `inputs`."""


class Format(ABC):
    """A format that models are exported to. A leaf is one file of this folder; `FORMATS` lists them."""

    name: ClassVar[str]
    """What `format=` calls it."""
    suffix: ClassVar[str]
    """The suffix of its files; empty for a folder."""
    extra: ClassVar[str] = "export"
    """The extra that brings what it needs beside a framework."""
    writer: ClassVar[str]
    """What it is made from, a key of `_backend.EXPORTERS`."""
    writes_with: ClassVar[tuple[str, ...]] = ()
    """Modules that writing imports beside the backend."""
    runs_with: ClassVar[tuple[str, ...]] = ()
    """Modules that running imports."""
    quantizes_with: ClassVar[tuple[str, ...]] = ()
    """Modules that `quantize` imports beside those."""
    companions: ClassVar[tuple[str, ...]] = ()
    """Suffixes of files that lie beside the main one and belong to it."""
    triton: ClassVar[str] = ""
    """The backend by which NVIDIA Triton serves it; empty for none."""
    without_bfloat16: ClassVar[str] = ""
    """Why it takes no model that computes in bfloat16; empty where it does."""
    takes_int8: ClassVar[bool] = False
    """Whether `quantize` makes an int8 model of it."""

    def is_made(self, path: Path) -> bool:
        """Returns whether what is at a path can be replaced by a model of this format."""
        return path.is_file()

    def check_installed(self, *, int8: bool = False) -> None:
        """Raises an ImportError where something is missing that writing and running need, with how to install it."""
        framework = EXPORTERS[self.writer][1][0]
        check_installed(framework, extra=framework)
        for module in (*self.writes_with, *self.runs_with, *(self.quantizes_with if int8 else ())):
            check_installed(module, extra=self.extra)

    @abstractmethod
    def write(self, model: keras.Model, signature: Signature, path: Path, options: Options) -> None:
        """Writes a built model; runs in a process whose backend is one of the writer's."""

    @abstractmethod
    def load(self, path: Path, threads: int | None = None) -> Program:
        """Returns the model in a file, ready to run on `threads` threads (None: as the runtime chooses)."""

    @abstractmethod
    def annotate(self, path: Path, note: Mapping[str, Any]) -> None:
        """Puts what is known about the model into the file itself."""

    def quantize(self, path: Path, out: Path, batches: Sequence[Sequence[np.ndarray]], *, vnni: bool) -> None:
        """Writes the int8 model of the one at `path`, calibrated on the batches.

        Args:
            path: A float model of this format.
            out: Where the int8 model goes.
            batches: Inputs, each an array for every input of the model.
            vnni: Whether the processor that will run it multiplies int8 exactly (AVX-512 VNNI and newer).
        """
        raise NotImplementedError(f"{self.name} has no int8 here.")
