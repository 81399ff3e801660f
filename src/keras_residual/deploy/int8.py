"""An exported model made int8: which rows it is calibrated on, and how far it agrees with the model on others."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_residual._errors import bad_argument
from keras_residual.deploy import verify
from keras_residual.deploy.formats.base import Format
from keras_residual.deploy.signature import OWNER, Signature, check_finite

LEAST_ROWS = 16
"""Rows that int8 needs: some to calibrate on, some to measure on."""


def rows_of(given: Any, signature: Signature) -> list[np.ndarray]:
    """Returns the rows of each input in its dtype.

    Raises:
        ValueError: If they are too few, all alike, not finite, or not those of the model.
    """
    arrays = [np.asarray(array) for array in keras.tree.flatten(given)]
    shapes = [array.shape for array in arrays]
    expected = [port.shape[1:] for port in signature.inputs]
    ports = zip(signature.inputs, shapes, strict=False)
    if len(shapes) != len(expected) or not all(port.takes(shape) for port, shape in ports):
        raise bad_argument(OWNER, "int8", f"rows of shape {expected}, as the model takes them", shapes)
    count = len(arrays[0])
    if count < LEAST_ROWS or any(len(array) != count for array in arrays):
        rule = f"at least {LEAST_ROWS} rows, as many of each input"
        raise bad_argument(OWNER, "int8", rule, shapes, "The shapes are shown.")
    arrays = [port.array(OWNER, "int8", array) for array, port in zip(arrays, signature.inputs, strict=True)]
    check_finite("int8", arrays, signature.inputs)
    if all((array == array[:1]).all() for array in arrays):
        rule = "rows that differ, since ranges and agreement are measured on them"
        raise bad_argument(OWNER, "int8", rule, f"{count} equal rows", "Pass typical rows of the data.")
    return arrays


def quantized(
    model: keras.Model, signature: Signature, made: Format, path: Path, rows: list[np.ndarray], vnni: bool | None
) -> tuple[Path, float, str]:
    """Returns the int8 file, how far it agrees with the model on rows that it was not calibrated on, and that in words.

    Args:
        model: The model.
        signature: Its signature.
        made: The format.
        path: The float file.
        rows: What `rows_of` returns.
        vnni: As `export` takes it.
    """
    count = len(rows[0])
    order = np.random.default_rng(0).permutation(count)  # rows often come class by class
    size = signature.inputs[0].shape[0] or 8
    out = path.parent / "int8" / path.name
    out.parent.mkdir()
    batches = _in_batches(rows, order[count // 3 :], size)
    made.quantize(path, out, batches, vnni=has_vnni() if vnni is None else vnni)
    program, pairs = made.load(out), []
    for batch in _in_batches(rows, order[: count // 3], size):
        pairs.append((verify.answers(model, signature, batch), verify.run(program, signature, batch)))
    outputs = [
        tuple(np.concatenate([pair[side][index] for pair in pairs]) for side in (0, 1))
        for index in range(len(signature.outputs))
    ]
    for port, (expected, _) in zip(signature.outputs, outputs, strict=True):
        if (expected == expected[:1]).all():
            what, way_out = "the same output", "and a wrong file may agree too"
        elif verify.is_classifier(expected) and len(set(expected.argmax(-1))) == 1:
            what, way_out = "the same class", "and a file that always gives that one would agree too"
        else:
            continue
        warnings.warn(
            f"{OWNER}: on the {count // 3} rows of `int8` that agreement is measured on, the model gives {what} in "
            f"{port.name!r}, {way_out}. Pass rows of which the answers differ.",
            stacklevel=3,
        )
    shares = [verify.agreement(*pair) for pair in outputs]
    worst = int(np.argmin(shares))
    return out, shares[worst], verify.disagreement(signature.outputs[worst].name, *outputs[worst])


def _in_batches(arrays: Sequence[np.ndarray], rows: np.ndarray, size: int) -> list[list[np.ndarray]]:
    """Returns the rows in whole batches; the last one is filled up with rows from the start."""
    filled = np.resize(rows, -(-len(rows) // size) * size)
    return [[array[part] for array in arrays] for part in filled.reshape(-1, size)]


def has_vnni() -> bool:
    """Returns whether the processor multiplies 8-bit numbers without overflow in between (VNNI, or ARM).

    Where nothing tells, the answer is False, which costs a bit of precision.
    """
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return False
    words = set(info.read_text(errors="replace").split())
    return bool(words & {"avx512_vnni", "avx_vnni", "asimddp", "i8mm"})
