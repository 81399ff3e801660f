"""What each network of the catalogue costs, counted once: the data file that `tools/model_costs.py` writes."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from keras_residual._errors import unknown_name
from keras_residual.models.costs import Costs


@dataclass(frozen=True, slots=True)
class Counted:
    """What a network costs, and for which input.

    Args:
        input_shape: Shape of one input, channels last.
        num_classes: Number of logits.
        costs: What it costs for this input.
    """

    input_shape: tuple[int, ...]
    num_classes: int
    costs: Costs

    @property
    def size(self) -> str:
        """The input in words: `"224×224"`, `"16×112×112"`, or `"32 features"` for a table."""
        *sizes, channels = self.input_shape
        return "×".join(map(str, sizes)) if sizes else f"{channels} features"


def counted(architecture: str) -> Counted:
    """Returns what a network of the catalogue costs, without building it.

    Args:
        architecture: A name of the catalogue, without a tag.

    Raises:
        ValueError: For an unknown name, with the nearest one.

    Example:
        >>> counted("resnet50").size, counted("resnet50").costs.macs
        ('224×224', 4089184256)
    """
    if architecture not in _table():
        raise unknown_name("counted", "architecture", architecture, _table())
    entry = dict(_table()[architecture])
    return Counted(tuple(entry.pop("input_shape")), entry.pop("num_classes"), Costs(**entry))


@functools.cache
def _table() -> MappingProxyType[str, Any]:
    text = files("keras_residual.models").joinpath("data", "costs.json").read_text(encoding="utf-8")
    return MappingProxyType(json.loads(text))
