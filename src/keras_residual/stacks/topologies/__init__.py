"""Topologies: how connections read, carry on and write the streams of a stack. One topology or small family per file.

This file has their names: a new topology is an import and a line in `TOPOLOGIES`.
"""

from __future__ import annotations

from types import MappingProxyType

from keras_residual._arguments import named
from keras_residual.stacks.topologies.attention_residuals import AttentionResiduals
from keras_residual.stacks.topologies.base import Coefficients, Link, Place, Rows, Topology
from keras_residual.stacks.topologies.dense_former import DenseFormer
from keras_residual.stacks.topologies.euler import Euler
from keras_residual.stacks.topologies.fractal import Fractal
from keras_residual.stacks.topologies.hyper_connections import HyperConnections
from keras_residual.stacks.topologies.laurel import Laurel
from keras_residual.stacks.topologies.manifold import MHC, IdentityHyperConnections, MHCLite
from keras_residual.stacks.topologies.mudd import Mudd
from keras_residual.stacks.topologies.residual_dual import ResidualDual
from keras_residual.stacks.topologies.reversible import Momentum, Reversible
from keras_residual.stacks.topologies.single import Single
from keras_residual.stacks.topologies.unet import UNet
from keras_residual.stacks.topologies.value_residual import ValueResidual
from keras_residual.stacks.topologies.x0_skip import X0Skip

__all__ = [
    "MHC",
    "TOPOLOGIES",
    "AttentionResiduals",
    "Coefficients",
    "DenseFormer",
    "Euler",
    "Fractal",
    "HyperConnections",
    "IdentityHyperConnections",
    "Laurel",
    "Link",
    "MHCLite",
    "Momentum",
    "Mudd",
    "Place",
    "ResidualDual",
    "Reversible",
    "Rows",
    "Single",
    "Topology",
    "UNet",
    "ValueResidual",
    "X0Skip",
    "make_topology",
]

TOPOLOGIES: MappingProxyType[str, type[Topology]] = MappingProxyType(
    {
        "single": Single,
        "reversible": Reversible,
        "momentum": Momentum,
        "euler": Euler,
        "x0_skip": X0Skip,
        "residual_dual": ResidualDual,
        "hyper_connections": HyperConnections,
        "mhc": MHC,
        "mhc_lite": MHCLite,
        "identity_hyper_connections": IdentityHyperConnections,
        "unet": UNet,
        "dense_former": DenseFormer,
        "mudd": Mudd,
        "attention_residuals": AttentionResiduals,
        "laurel": Laurel,
        "value_residual": ValueResidual,
        "fractal": Fractal,
    }
)


def make_topology(value: str | Topology) -> Topology:
    """Returns the topology of a name; a topology is returned as it is."""
    return named("ResidualStack", "topology", value, Topology, TOPOLOGIES, name=value)
