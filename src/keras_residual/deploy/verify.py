"""Whether an exported model answers as the model does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_residual._errors import bad_argument
from keras_residual.deploy.formats.base import Program
from keras_residual.deploy.signature import OWNER, Signature

BATCH_SIZES = (1, 5)
"""Sizes at which files are tried. Programs are traced at 2."""

BOUNDS = {"float64": 2e-4, "float32": 2e-4, "float16": 2e-2, "bfloat16": 1e-1}
"""Largest difference that is taken for rounding, over the deviation of the output, by the dtype of the computation."""

LOST = 0.5
"""Closeness, `1 - RMS / deviation`, at which a number of an int8 model says nothing any more."""

RESOLVED = 0.05
"""Deviation of a column, over that of the others, that 8 bits tell from none: two steps of a range of 10 deviations."""


@dataclass(frozen=True)
class Check:
    """How far an exported model is from the model.

    Args:
        output: Name of the output that is farthest off.
        difference: Largest difference in that output.
        deviation: Standard deviation of that output over all samples; of one that hardly varies, a hundredth of its
            largest absolute value.
        bound: Largest `difference / deviation` that is taken for rounding.
        batch_sizes: The sizes of the batches that were tried.
    """

    output: str
    difference: float
    deviation: float
    bound: float
    batch_sizes: tuple[int, ...]

    @property
    def passed(self) -> bool:
        """Whether the difference is within the bound."""
        return bool(self.difference <= self.bound * self.deviation)

    def __str__(self) -> str:
        share = self.difference / self.deviation if self.deviation else float("inf")
        return (
            f"largest difference {self.difference:.1e}, {share:.1e} of the deviation of {self.output!r} "
            f"(bound {self.bound:.0e}), at batch sizes {' and '.join(map(str, self.batch_sizes))}"
        )


def answers(model: keras.Model, signature: Signature, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns the outputs of a model for one array of each input, as float64."""
    packed = keras.tree.pack_sequence_as(signature.structure, list(arrays))
    return [_wide(output) for output in keras.tree.flatten(model.predict_on_batch(packed))]


def check_comparable(signature: Signature, expected: Sequence[Sequence[np.ndarray]]) -> None:
    """Raises a ValueError where the answers of a model tell nothing about a file: NaN, or nothing that is finite.

    Args:
        signature: The model's signature.
        expected: What `answers` returns, for some batches.
    """
    for port, *outputs in zip(signature.outputs, *expected, strict=True):
        values = np.concatenate([output.ravel() for output in outputs])
        missing = int(np.isnan(values).sum())
        if missing or not np.isfinite(values).any():
            what = f"NaN in {missing} of {values.size} values" if missing else "infinite or empty"
            raise bad_argument(
                OWNER, "model", "one that gives numbers for the rows that the file is tried with",
                f"{port.name}: {what}", "Look at its weights, or pass rows that it is made for: `samples=x[:4]`.",
            )  # fmt: skip


def run(program: Program, signature: Signature, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns the outputs of an exported model in the order of the signature, as `answers` does."""
    by_name = dict(zip((port.name for port in signature.inputs), arrays, strict=True))
    named = program.named and {port.name for port in program.inputs} == set(by_name)
    given = [by_name[port.name] for port in program.inputs] if named else list(arrays)
    found = [_wide(output) for output in program.run(given)]
    made = dict(zip((port.name for port in program.outputs), found, strict=True))
    names = [port.name for port in signature.outputs]
    return [made[name] for name in names] if program.named and set(names) == set(made) else found


def compare(
    program: Program,
    signature: Signature,
    batches: Sequence[Sequence[np.ndarray]],
    expected: Sequence[Sequence[np.ndarray]],
    bound: float,
) -> Check:
    """Returns how far an exported model is off, at the output where it is farthest.

    Args:
        program: The exported model.
        signature: The model's signature.
        batches: Inputs.
        expected: The model's outputs for them.
        bound: As `Check` takes it.
    """
    found = [run(program, signature, batch) for batch in batches]
    return max(checks(signature, expected, found, bound), key=lambda check: check.difference / check.deviation)


def checks(
    signature: Signature,
    expected: Sequence[Sequence[np.ndarray]],
    found: Sequence[Sequence[np.ndarray]],
    bound: float,
) -> list[Check]:
    """Returns for each output how far it is off; arguments as in `compare`, and the outputs that were found."""
    made = []
    for index, port in enumerate(signature.outputs):
        ours, theirs = ([outputs[index] for outputs in each] for each in (expected, found))
        if any(a.shape != b.shape for a, b in zip(ours, theirs, strict=True)):
            difference = float("inf")
        else:
            difference = max(_difference(a, b) for a, b in zip(ours, theirs, strict=True))
        values = np.concatenate([output.ravel() for output in ours])
        finite = values[np.isfinite(values)]
        # An output that hardly varies is held to the rounding of its size.
        deviation = max(float(finite.std()) if finite.size else 0.0, 1e-2 * float(np.abs(finite).max(initial=0)), 1e-30)
        sizes = tuple(len(output) if output.ndim else 1 for output in ours)
        made.append(Check(port.name, difference, deviation, bound, sizes))
    return made


def agreement(expected: np.ndarray, found: np.ndarray) -> float:
    """Returns how far two outputs agree, in `[0, 1]`.

    Of an output `(rows, classes)` that is the share of rows with the same class. Nothing says of scores without a
    softmax that they are classes: where one of the columns is lost, off by half of its deviation or more, these are
    several numbers, and the worst column counts. A class that never wins may have a score that hardly varies, by less
    than 8 bits resolve, and is then held to the median deviation of the columns; it is taken for a class where several
    others win, and its size is a hundredth of the median column's or more. Of another output it is
    `1 - RMS / deviation`, at least 0.

    Args:
        expected: `(rows, classes)`, or an output of another shape.
        found: Of the same shape.
    """
    if not is_classifier(expected):
        return _closeness(expected, found)
    same, closeness = _same_classes(expected, found), _closeness_of_columns(expected, found)
    return same if _are_probabilities(expected) or min(closeness) > LOST else min(same, *closeness)


def disagreement(output: str, expected: np.ndarray, found: np.ndarray) -> str:
    """Returns in a sentence how far two outputs agree, for a message.

    Args:
        output: Name of the output.
        expected: As in `agreement`.
        found: As in `agreement`.
    """
    if not is_classifier(expected):
        return f"The output that agrees least is {output!r}."
    classes = f"the class is the same in {_same_classes(expected, found):.1%} of the rows"
    closeness = _closeness_of_columns(expected, found)
    if _are_probabilities(expected) or min(closeness) > LOST:
        return f"In {output!r} {classes}."
    column = int(np.argmin(closeness))
    return f"In {output!r} {classes}, but column {column} is off by half of its deviation or more."


def _same_classes(expected: np.ndarray, found: np.ndarray) -> float:
    return float((expected.argmax(-1) == found.argmax(-1)).mean())


def _closeness_of_columns(expected: np.ndarray, found: np.ndarray) -> list[float]:
    deviations, sizes = expected.std(axis=0), np.sqrt(np.mean(expected**2, axis=0))
    wins = np.bincount(expected.argmax(-1), minlength=expected.shape[-1]) > 0
    usual = float(np.median(deviations))
    quiet = ~wins & (wins.sum() > 1) & (deviations < RESOLVED * usual) & (sizes >= 1e-2 * np.median(sizes))
    return [
        _closeness(ours, theirs, usual if still else None)
        for ours, theirs, still in zip(expected.T, found.T, quiet, strict=True)
    ]


def _closeness(expected: np.ndarray, found: np.ndarray, spread: float | None = None) -> float:
    if spread is None:
        spread, size = float(expected.std()), float(np.abs(expected).max(initial=0))
        # An output that hardly varies is held to its size.
        spread = spread if spread > 1e-3 * size else size
    if not spread:
        return float(np.array_equal(expected, found))
    return max(0.0, 1 - float(np.sqrt(np.mean((expected - found) ** 2))) / spread)


def _are_probabilities(output: np.ndarray) -> bool:
    return bool(np.all(output >= 0) and np.allclose(output.sum(-1), 1, atol=1e-3))


def is_classifier(output: np.ndarray) -> bool:
    """Returns whether an output is compared by its classes."""
    return output.ndim == 2 and output.shape[-1] > 1


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(ours - theirs))
    return float(np.nan_to_num(apart, nan=np.inf).max(initial=0))


def _wide(output: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(output)).astype("float64")
