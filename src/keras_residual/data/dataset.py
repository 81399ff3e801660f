"""Training and test data, in memory or on the disk, checked once so that nothing downstream has to ask."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from keras_residual._errors import bad_data, shown
from keras_residual.data.files import in_words
from keras_residual.data.lazy import Inputs, LazyExamples, Skipped

Kind = Literal["pictures", "table"]
Task = Literal["classification", "regression"]

# The answers to all test examples, a number a class, are in memory together.
MAX_ANSWER_BYTES = 2**28


@dataclass(frozen=True, eq=False)
class Dataset:
    """Raw examples with their answers, split into training and test.

    Args:
        name: `"digits"`, or the folder's or file's name without suffix.
        kind: What a row of `x` is: a picture or a row of a table.
        task: What `y` holds: class indices or numbers.
        x_train: Pictures: uint8 of shape `(examples, height, width, channels)`, 0..255, 1 or 3 channels.
            Tables: finite floats of shape `(examples, features)`, float64 where `load_dataset` has read them. What
            takes too much memory is a `LazyExamples`.
        y_train: Classes: int32 of shape `(examples,)` in `[0, len(classes))`. Numbers: finite floats, same shape.
        x_test: As `x_train`.
        y_test: As `y_train`.
        classes: Class names in index order, two at least; `()` for regression.
        features: Column names of a table in the order of `x`; `()` for pictures.
        own_test: Whether the source has a test part of its own, so that nothing was drawn by seed.
        notes: What the user should know of the data: sentences.
        found: What was found where, and how it is read: sentences.
        choose: Places in `x_train` of the validation part that the source itself has, by which the best epoch is
            chosen; None where it has none.
        skipped: What could not be read; None where everything is in memory since it was made.

    Raises:
        ValueError: If a part is empty, has another type or shape than stated, or there is one class only, or so many
            that the answers would not fit into memory.
    """

    name: str
    kind: Kind
    task: Task
    x_train: Inputs
    y_train: np.ndarray
    x_test: Inputs
    y_test: np.ndarray
    classes: tuple[str, ...]
    features: tuple[str, ...]
    own_test: bool = False
    notes: tuple[str, ...] = ()
    found: tuple[str, ...] = ()
    choose: np.ndarray | None = None
    skipped: Skipped | None = None

    def __post_init__(self) -> None:
        self._check_classes()
        for part, x, y in (("train", self.x_train, self.y_train), ("test", self.x_test, self.y_test)):
            self._check_inputs(part, x)
            self._check_answers(part, y)
            if len(x) != len(y):
                raise bad_data(self._owner, f"x_{part} has {len(x)} rows and y_{part} has {len(y)}")
        self.check_there_are("test")
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            raise bad_data(
                self._owner, f"an example has shape {self.x_train.shape[1:]} in x_train and {self.x_test.shape[1:]} in "
                "x_test",
            )  # fmt: skip

    def check_there_are(self, part: str) -> None:
        """Raises a `ValueError` where the part, "train" or "test", is empty."""
        if len(getattr(self, f"x_{part}")) == 0:
            raise bad_data(self._owner, f"there are no {part} examples")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example: `(height, width, channels)` or `(features,)`."""
        return self.x_test.shape[1:]

    def without_gone(self, outputs: np.ndarray) -> tuple[Dataset, np.ndarray]:
        """Returns the data without the test examples whose files went while they were read, and answers to the rest."""
        if not isinstance(self.x_test, LazyExamples) or self.x_test.there.all():
            return self, outputs
        there = self.x_test.there
        return replace(self, x_test=self.x_test.subset(there), y_test=self.y_test[there]), outputs[there]

    @property
    def _owner(self) -> str:
        return f"Data {shown(self.name)}"

    def _check_classes(self) -> None:
        if self.task == "classification" and len(self.classes) < 2:
            only = f"only the class {shown(self.classes[0])}" if self.classes else "no class"
            raise bad_data(
                self._owner, f"there is {only}, and telling classes apart needs two at least",
                "Add examples of another class.",
            )  # fmt: skip
        if self.task == "regression" and self.classes:
            raise bad_data(self._owner, f"regression has no classes, but received {shown(self.classes)}")
        size = 4 * len(self.y_test) * len(self.classes)
        if size > MAX_ANSWER_BYTES:
            raise bad_data(
                self._owner, f"{len(self.y_test)} test examples and {len(self.classes)} classes make "
                f"{in_words(size)} of answers, and {in_words(MAX_ANSWER_BYTES)} are allowed",
                "Test with fewer examples, put rare classes together, or set the task to 'regression' if they are "
                "numbers.",
            )  # fmt: skip

    def _check_inputs(self, part: str, x: Inputs) -> None:
        if self.kind == "pictures":
            right = x.dtype == np.uint8 and x.ndim == 4 and x.shape[-1] in (1, 3) and not self.features
            rule = "uint8 of shape (examples, height, width, 1 or 3)"
        else:
            right = x.dtype.kind == "f" and x.ndim == 2 and x.shape[1] == len(self.features) > 0
            rule = f"floats of shape (examples, {len(self.features)}), a column a feature"
        if not right:
            raise bad_data(self._owner, f"x_{part} must be {rule}, but is {x.dtype} of shape {x.shape}")

    def _check_answers(self, part: str, y: np.ndarray) -> None:
        right, rule = (y.dtype == np.int32, "int32") if self.classes else (y.dtype.kind == "f", "floats")
        if not right or y.ndim != 1:
            what = f"y_{part} must be {rule} of shape (examples,), but is {y.dtype} of shape {y.shape}"
            raise bad_data(self._owner, what)
        if self.task == "classification" and len(y) and not 0 <= y.min() <= y.max() < len(self.classes):
            raise bad_data(
                self._owner, f"y_{part} must be in [0, {len(self.classes)}), but runs from {y.min()} to {y.max()}"
            )


def targets_that_do_not_vary(dataset: Dataset) -> tuple[str, ...]:
    """Returns sentences about a target that is one number in all of a part; `()` for classes."""
    if dataset.classes:
        return ()
    said = [
        f"{y[0]:.10g} in every {part} example, so {therefore}"
        for part, y, therefore in (
            ("training", dataset.y_train, "there is nothing to learn"),
            ("test", dataset.y_test, "R² is not defined"),
        )
        if len(y) > 1 and np.ptp(y) == 0
    ]
    single = ("R² is not defined for a single test example.",) if len(dataset.y_test) == 1 else ()
    return (*([f"The target is {', and '.join(said)}."] if said else []), *single)
