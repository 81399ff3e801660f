"""How skip and branch of a residual connection meet: the merges, and their names."""

from __future__ import annotations

from types import MappingProxyType

from keras_residual.residual.merges.base import Merge
from keras_residual.residual.merges.gates import (
    GRNMerge,
    GRUMerge,
    HighwayMerge,
    InputGateMerge,
    LerpMerge,
    OutputGateMerge,
    SigmoidTanhMerge,
)
from keras_residual.residual.merges.geometric import DeltaMerge, NormalizedLerpMerge, OrthogonalMerge
from keras_residual.residual.merges.sums import (
    AddMerge,
    ConcatMerge,
    MagnitudePreservingMerge,
    MeanMerge,
    WeightedMerge,
)

__all__ = [
    "MERGES",
    "AddMerge",
    "ConcatMerge",
    "DeltaMerge",
    "GRNMerge",
    "GRUMerge",
    "HighwayMerge",
    "InputGateMerge",
    "LerpMerge",
    "MagnitudePreservingMerge",
    "MeanMerge",
    "Merge",
    "NormalizedLerpMerge",
    "OrthogonalMerge",
    "OutputGateMerge",
    "SigmoidTanhMerge",
    "WeightedMerge",
]

MERGES: MappingProxyType[str, type[Merge]] = MappingProxyType(
    {
        "add": AddMerge,
        "concat": ConcatMerge,
        "mean": MeanMerge,
        "weighted": WeightedMerge,
        "highway": HighwayMerge,
        "gru": GRUMerge,
        "input_gate": InputGateMerge,
        "output_gate": OutputGateMerge,
        "sigmoid_tanh": SigmoidTanhMerge,
        "lerp": LerpMerge,
        "grn": GRNMerge,
        "orthogonal": OrthogonalMerge,
        "magnitude_preserving": MagnitudePreservingMerge,
        "delta": DeltaMerge,
        "normalized_lerp": NormalizedLerpMerge,
    }
)
"""Names that `merge=` takes."""
