"""How the streams of a stack are read, carried on and written to: one topology, or one small family, a file."""

from keras_residual.stacks.topologies.base import Coefficients, Link, Place, Topology
from keras_residual.stacks.topologies.registry import TOPOLOGIES, make_topology
from keras_residual.stacks.topologies.reversible import Momentum, Reversible
from keras_residual.stacks.topologies.single import Single

__all__ = [
    "TOPOLOGIES",
    "Coefficients",
    "Link",
    "Momentum",
    "Place",
    "Reversible",
    "Single",
    "Topology",
    "make_topology",
]
