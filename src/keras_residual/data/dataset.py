"""Training and test data in memory, checked once so that nothing downstream has to ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["pictures", "table"]
Task = Literal["classification", "regression"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Raw examples with their answers, split into training and test.

    Args:
        name: `"digits"`, or the folder's or file's name without suffix.
        kind: What a row of `x` is: a picture or a row of a table.
        task: What `y` holds: class indices or numbers.
        x_train: Pictures: uint8 of shape `(examples, height, width, channels)`, 0..255, 1 or 3 channels.
            Tables: finite float32 of shape `(examples, features)`.
        y_train: Classes: int32 of shape `(examples,)` in `[0, len(classes))`. Numbers: finite float32, same shape.
        x_test: As `x_train`.
        y_test: As `y_train`.
        classes: Class names in index order, two at least; `()` for regression.
        features: Column names of a table in the order of `x`; `()` for pictures.

    Raises:
        ValueError: If a part is empty, has another type or shape than stated, or there is one class only.
    """

    name: str
    kind: Kind
    task: Task
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...]
    features: tuple[str, ...]

    def __post_init__(self) -> None:
        self._check_classes()
        for part, x, y in (("train", self.x_train, self.y_train), ("test", self.x_test, self.y_test)):
            self._check_inputs(part, x)
            self._check_answers(part, y)
            if len(x) != len(y):
                raise ValueError(f"Data {self.name!r}: x_{part} has {len(x)} rows and y_{part} has {len(y)}.")
        self.check_there_are("test")
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            raise ValueError(
                f"Data {self.name!r}: an example has shape {self.x_train.shape[1:]} in x_train "
                f"and {self.x_test.shape[1:]} in x_test."
            )

    def check_there_are(self, part: str) -> None:
        """Raises a `ValueError` where the part, "train" or "test", is empty."""
        if len(getattr(self, f"x_{part}")) == 0:
            raise ValueError(f"Data {self.name!r}: there are no {part} examples.")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example: `(height, width, channels)` or `(features,)`."""
        return self.x_train.shape[1:]

    def _check_classes(self) -> None:
        if self.task == "classification" and len(self.classes) < 2:
            only = f"only the class {self.classes[0]!r}" if self.classes else "no class"
            raise ValueError(
                f"Data {self.name!r}: there is {only}, and telling classes apart needs two at least. "
                f"Add examples of another class."
            )
        if self.task == "regression" and self.classes:
            raise ValueError(f"Data {self.name!r}: regression has no classes, but received {self.classes!r}.")

    def _check_inputs(self, part: str, x: np.ndarray) -> None:
        if self.kind == "pictures":
            right = x.dtype == np.uint8 and x.ndim == 4 and x.shape[-1] in (1, 3) and not self.features
            rule = "uint8 of shape (examples, height, width, 1 or 3)"
        else:
            right = x.dtype == np.float32 and x.ndim == 2 and x.shape[1] == len(self.features) > 0
            rule = f"float32 of shape (examples, {len(self.features)}), a column a feature"
        if not right:
            raise ValueError(f"Data {self.name!r}: x_{part} must be {rule}, but is {x.dtype} of shape {x.shape}.")

    def _check_answers(self, part: str, y: np.ndarray) -> None:
        dtype = np.int32 if self.task == "classification" else np.float32
        if y.dtype != dtype or y.ndim != 1:
            raise ValueError(
                f"Data {self.name!r}: y_{part} must be {np.dtype(dtype)} of shape (examples,), "
                f"but is {y.dtype} of shape {y.shape}."
            )
        if self.task == "classification" and len(y) and not 0 <= y.min() <= y.max() < len(self.classes):
            raise ValueError(
                f"Data {self.name!r}: y_{part} must be in [0, {len(self.classes)}), but runs "
                f"from {y.min()} to {y.max()}."
            )
