"""What was asked of `load_dataset`, checked, in one object that every kind of source receives."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from keras_residual._errors import bad_argument, bad_data, shown, wrong_type
from keras_residual._order import composed
from keras_residual.data.dataset import Kind
from keras_residual.data.lazy import MEMORY_BUDGET

MAX_SEED = 2**32 - 1
MOST_BROKEN = 100
"""Pictures that cannot be read and are passed over, where nobody says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """The arguments of `load_dataset`; see there.

    Raises:
        ValueError: If a value is out of its range.
        TypeError: If a value has another type.
    """

    source: str
    target: str | None = None
    task: Literal["auto", "classification", "regression"] = "auto"
    image_size: int | None = None
    image_shape: tuple[int, int, int] | None = None
    test_fraction: float = 0.2
    seed: int = 0
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    usual_size: tuple[int, int, str] | None = None
    memory: int = MEMORY_BUDGET
    most_broken: int = MOST_BROKEN

    def __post_init__(self) -> None:
        # A configuration could not be written down.
        if not self.source.isprintable() and any("\ud800" <= sign <= "\udfff" for sign in self.source):
            raise bad_data(self.owner, "its path is not UTF-8", "Rename it.")
        if self.task not in ("auto", "classification", "regression"):
            raise bad_argument(self.owner, "task", "'auto', 'classification' or 'regression'", self.task)
        if self.image_size is not None and not _is_whole(self.image_size, low=1):
            raise bad_argument(self.owner, "image_size", "a whole number of pixels, 1 or more", self.image_size)
        if self.image_shape is not None and not (
            len(self.image_shape) == 3
            and all(_is_whole(size, low=1) for size in self.image_shape)
            and self.image_shape[2] in (1, 3)
        ):
            raise bad_argument(self.owner, "image_shape", "(height, width, 1 or 3)", self.image_shape)
        if not isinstance(self.test_fraction, (int, float)) or not 0.0 < self.test_fraction <= 1.0:
            raise bad_argument(self.owner, "test_fraction", "above 0, and 1 at most", self.test_fraction)
        if not _is_whole(self.seed, low=0) or self.seed > MAX_SEED:
            raise bad_argument(self.owner, "seed", f"a whole number in [0, {MAX_SEED}]", self.seed)
        for argument in ("memory", "most_broken"):
            if not _is_whole(getattr(self, argument), low=0):
                raise bad_argument(self.owner, argument, "a whole number, 0 or more", getattr(self, argument))
        for argument in ("classes", "features", "drop"):
            names = getattr(self, argument)
            if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
                raise wrong_type(self.owner, argument, "a tuple of names", names)
            object.__setattr__(self, argument, tuple(map(composed, names)))
        if isinstance(self.target, str):
            object.__setattr__(self, "target", composed(self.target))

    @property
    def owner(self) -> str:
        """How messages call the data."""
        return f"Data {shown(self.source)}"

    def refuse(self, *arguments: str, because: str) -> None:
        """Raises a ValueError for the first of these arguments that was given although the source has no use for it."""
        defaults = {field.name: field.default for field in fields(self)}
        for argument in arguments:
            value = getattr(self, argument)
            if value != defaults[argument]:
                raise bad_argument(self.owner, argument, "left out", value, because)

    def check_kind(self, kind: Kind) -> None:
        """Raises a ValueError where a trained model takes pictures and the data is a table, or the other way round."""
        if kind == "pictures" and self.features:
            columns = f"{len(self.features)} column{'s' if len(self.features) > 1 else ''}"
            raise bad_data(self.owner, f"the data is pictures, and the model takes a table of {columns}")
        if kind == "table" and self.image_shape is not None:
            size = "×".join(map(str, self.image_shape))
            raise bad_data(self.owner, f"the data is a table, and the model takes pictures of {size}")

    @property
    def picture_shape(self) -> tuple[int | None, int | None, int | None]:
        """Height, width and channels that were asked for, None where the pictures decide."""
        if self.image_shape is not None:
            return self.image_shape
        return (self.image_size, self.image_size, None)


def source_name(path: Path) -> str:
    """Returns what data is called: the folder's name, or the file's without its suffix."""
    resolved = path.resolve()
    return resolved.name if resolved.is_dir() else resolved.stem


def _is_whole(value: object, *, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low
