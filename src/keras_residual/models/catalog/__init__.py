"""Names and the architectures behind them, and what other libraries call them: data only."""

from __future__ import annotations

from types import MappingProxyType

from keras_residual.models.catalog import imagenet, other
from keras_residual.models.config import Config

FAMILIES: MappingProxyType[str, MappingProxyType[str, Config]] = MappingProxyType(
    {**imagenet.FAMILIES, **other.FAMILIES}
)
"""The names of each family."""

CATALOG: MappingProxyType[str, Config] = MappingProxyType(
    {name: config for family in FAMILIES.values() for name, config in family.items()}
)
"""Every architecture by its name."""


def family_of(name: str) -> str:
    """Returns the family of a name in the catalogue."""
    return next(family for family, names in FAMILIES.items() if name in names)


def is_for_imagenet(name: str) -> bool:
    """Returns whether a network is made for pictures of ImageNet's size, with a thousand classes."""
    return family_of(name) in imagenet.FAMILIES


def usual_input(name: str) -> tuple[tuple[int, ...], int]:
    """Returns the shape of one input, channels last, and the number of classes for which costs are given."""
    found = other.USUAL_INPUTS.get(name) or other.USUAL_INPUTS.get(family_of(name))
    return found or ((224, 224, 3), 1000)
