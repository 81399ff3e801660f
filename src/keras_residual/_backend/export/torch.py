"""Programs of PyTorch that hold a whole model: ONNX and `.pt2` files are made from them."""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch


class _Module(torch.nn.Module):
    """A Keras model in inference as a function of flat tensors."""

    def __init__(self, model: Any, signature: Any) -> None:
        super().__init__()
        self.model = model
        self.signature = signature

    def forward(self, *inputs: Any) -> Any:
        outputs = self.signature.call(self.model, inputs)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def program_of(model: Any, signature: Any, batch_size: int | None) -> torch.export.ExportedProgram:
    """Returns the program of a Keras model whose inputs have the axes that are not known as parameters.

    Args:
        model: A built model of the PyTorch backend.
        signature: Its `Signature`.
        batch_size: The one batch size that it takes; None for any.
    """
    module = _Module(model, signature).eval()
    list(module.parameters())
    # A batch of 1 would be taken for a constant.
    arrays = [_array(port, batch_size or 2) for port in signature.inputs]
    batch = torch.export.Dim("batch") if batch_size is None else None
    shapes = tuple(
        {axis: (batch if axis == 0 else torch.export.Dim.AUTO) for axis, size in enumerate(port.shape) if size is None}
        for port in signature.inputs
    )
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(module, tuple(arrays), dynamic_shapes={"inputs": shapes}, strict=False)


def _array(port: Any, batch_size: int) -> torch.Tensor:
    # Sizes that are not known are tried with one that strides of 32 divide.
    shape = [batch_size, *(64 if size is None else size for size in port.shape[1:])]
    return torch.zeros(shape, dtype=getattr(torch, port.dtype))


def write_onnx(program: torch.export.ExportedProgram, path: Path, signature: Any, opset: int) -> None:
    """Writes the program as an ONNX file with the names of the signature."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: Any = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            input_names=[port.name for port in signature.inputs],
            output_names=[port.name for port in signature.outputs],
            optimize=True,
            verbose=False,
        )
        _rename_within(made.model.graph)
        made.save(str(path))


def _rename_within(graph: Any) -> None:
    """Gives another name to values within a graph that have that of an input or output, as an ArgMax has `argmax`."""
    ports = {value.name: value for value in (*graph.inputs, *graph.outputs)}
    made = [value for node in graph.all_nodes() for value in node.outputs]
    within = [*made, *graph.initializers.values()]
    taken = {value.name for value in within} | set(ports)
    for value in within:
        if value.name in ports and value is not ports[value.name]:
            value.name = next(name for number in itertools.count(1) if (name := f"{value.name}.{number}") not in taken)
            taken.add(value.name)


def write_pt2(program: torch.export.ExportedProgram, path: Path) -> None:
    """Writes the program as a `.pt2` file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Into memory first: PyTorch's own writer ends the process where the disk is full.
        content = io.BytesIO()
        torch.export.save(program, content)
        path.write_bytes(content.getvalue())


class LoadedPt2:
    """A `.pt2` file, ready to run.

    Args:
        path: The file.
        note: Name of a text within it.
        threads: Number of threads; None for PyTorch's choice. It holds for the process.
    """

    def __init__(self, path: Path, note: str, threads: int | None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        texts = {note: ""}
        program = torch.export.load(path, extra_files=texts)
        self.note = texts[note]
        nodes = {node.name: node for node in program.graph.nodes}
        self._ports = tuple(
            [_described(nodes[name].meta["val"]) for name in names]
            for names in (program.graph_signature.user_inputs, program.graph_signature.user_outputs)
        )
        self._module: Any = program.module()

    def ports(self) -> Any:
        """Returns shape and dtype of each input and of each output."""
        return self._ports

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the outputs for one array of each input."""
        with torch.no_grad():
            outputs = self._module(*[torch.from_numpy(np.ascontiguousarray(array)) for array in arrays])
        outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        # NumPy has no bfloat16.
        return [(output.float() if output.dtype == torch.bfloat16 else output).numpy() for output in outputs]


def _described(tensor: Any) -> tuple[tuple[int | None, ...], str]:
    shape = tuple(size if isinstance(size, int) else None for size in tensor.shape)
    return shape, str(tensor.dtype).removeprefix("torch.")
