"""Topologies by name."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from keras_residual._errors import unknown_name, wrong_type
from keras_residual.stacks.topologies.base import Topology
from keras_residual.stacks.topologies.reversible import Momentum, Reversible
from keras_residual.stacks.topologies.single import Single

TOPOLOGIES: MappingProxyType[str, type[Topology]] = MappingProxyType(
    {
        "single": Single,
        "reversible": Reversible,
        "momentum": Momentum,
    }
)


def make_topology(value: Any) -> Topology:
    """Returns a topology by its name, or the one that is given."""
    if isinstance(value, Topology):
        return value
    if not isinstance(value, str):
        raise wrong_type("ResidualStack", "topology", f"a Topology or one of {', '.join(TOPOLOGIES)}", value)
    if value not in TOPOLOGIES:
        raise unknown_name("ResidualStack", "topology", value, TOPOLOGIES)
    return TOPOLOGIES[value](name=value)
