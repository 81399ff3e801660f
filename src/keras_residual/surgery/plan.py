"""The plan of an operation, as data that can be printed and changed before it is carried out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from keras_residual._errors import printable
from keras_residual._notebook import html_table
from keras_residual._types import Shape


@dataclass(frozen=True)
class Group:
    """Consecutive layers that get a shortcut.

    Args:
        name: Name of the `Residual` that will hold them.
        layers: Their names in order; inside a nested model with its name before, as in `"encoder/dense_1"`.
        shortcut: `"identity"`, or `"projection"` where channels or sizes change.
        input_shape: Shape of the first layer's input, with the batch.
        output_shape: Shape of the last layer's output.
        activation: Activation that moves from the last layer behind the sum, or None.
    """

    name: str
    layers: tuple[str, ...]
    shortcut: str
    input_shape: Shape
    output_shape: Shape
    activation: str | None = None

    def __str__(self) -> str:
        return f"{printable(self.name)}: {self._inside}; {self.shortcut}, {self._shapes}"

    @property
    def _inside(self) -> str:
        behind = f" → {self.activation}" if self.activation else ""
        return f"{', '.join(map(printable, self.layers))}{behind}"

    @property
    def _shapes(self) -> str:
        shapes = _sizes(self.input_shape)
        if self.output_shape != self.input_shape:
            shapes += f" → {_sizes(self.output_shape)}"
        return shapes


@dataclass(frozen=True)
class ResidualPlan:
    """The groups that get a shortcut, and the layers that stay as they are. A sequence of its groups.

    Args:
        groups: In the order of the model.
        left_alone: Names of layers with a reason, in the order of the model.
    """

    groups: tuple[Group, ...]
    left_alone: tuple[tuple[str, str], ...] = ()

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> Group:
        return self.groups[index]

    def to_dict(self) -> dict[str, Any]:
        """Returns `groups`, each with the fields of `Group`, and `left_alone`, reasons by name."""
        return {"groups": [asdict(group) for group in self.groups], "left_alone": dict(self.left_alone)}

    def __str__(self) -> str:
        lines = [self._count + (":" if self.groups else ""), *(f"  {group}" for group in self.groups)]
        if self.left_alone:
            lines += ["left alone:", *(f"  {names}: {reason}" for names, reason in _by_reason(self.left_alone))]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Returns the same as tables for a notebook."""
        header = ("Residual", "layers", "shortcut", "shape")
        rows = [(group.name, group._inside, group.shortcut, group._shapes) for group in self.groups]
        plan = html_table(self._count, rows, header if rows else ())
        return plan + (html_table("Left alone", _by_reason(self.left_alone)) if self.left_alone else "")

    @property
    def _count(self) -> str:
        return f"{len(self)} shortcut{'' if len(self) == 1 else 's'}"


def _sizes(shape: Shape) -> str:
    return "×".join("?" if size is None else str(size) for size in shape[1:])


def _by_reason(left_alone: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, str]]:
    reasons = dict.fromkeys(reason for _, reason in left_alone)
    for reason in reasons:
        yield ", ".join(printable(name) for name, why in left_alone if why == reason), reason
