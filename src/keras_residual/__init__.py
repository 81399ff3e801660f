"""Residual connections for Keras 3: any branch, any depth, any backend.

>>> import keras_residual as kr  # before Keras, which takes TensorFlow where nobody says otherwise
>>> import keras
>>> inputs = keras.Input((64,))
>>> outputs = kr.Residual(keras.layers.Dense(64, activation="relu"))(inputs)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from keras_residual import _backend, layers  # noqa: F401 - _backend first: it chooses one, then imports Keras
from keras_residual._errors import CheckpointError
from keras_residual._version import __version__
from keras_residual.compilation_cache import disable_compilation_cache, enable_compilation_cache
from keras_residual.layers.value_attention import ValueResidualAttention
from keras_residual.layers.weight_standardization import ScaledWSConv1D, ScaledWSConv2D, ScaledWSConv3D
from keras_residual.models.blocks import (
    basic_block,
    bottleneck_block,
    preact_basic_block,
    preact_bottleneck_block,
    series_block,
    tabular_block,
)
from keras_residual.models.builder import ResNet, ResNetV2
from keras_residual.models.config import ResNetConfig, ResNetV2Config
from keras_residual.models.freezing import freeze
from keras_residual.models.preprocessing import Preprocessing, preprocessing
from keras_residual.models.registry import create_model, feature_strides, list_models
from keras_residual.residual.merges import (
    AddMerge,
    ConcatMerge,
    DeltaMerge,
    GRNMerge,
    GRUMerge,
    HighwayMerge,
    InputGateMerge,
    LerpMerge,
    MagnitudePreservingMerge,
    MeanMerge,
    Merge,
    NormalizedLerpMerge,
    OrthogonalMerge,
    OutputGateMerge,
    SigmoidTanhMerge,
    WeightedMerge,
)
from keras_residual.residual.regularizers import DropPath, ShakeDrop, ShakeShake
from keras_residual.residual.residual import Residual
from keras_residual.residual.scales import FixupScale, LayerScale, ScalarBias, Scale, SkipInit
from keras_residual.residual.shortcuts import AvgPoolShortcut, ProjectionShortcut, Shortcut, ZeroPadShortcut
from keras_residual.stacks import depth_rules, topologies
from keras_residual.stacks.observation import observe
from keras_residual.stacks.stack import ResidualStack
from keras_residual.surgery.fold_batch_norm import fold_batch_norm
from keras_residual.surgery.plan import ResidualPlan
from keras_residual.surgery.residualize import residualize
from keras_residual.surgery.suggest import suggest_groups
from keras_residual.training import optimizers, recipes
from keras_residual.weights.load import load_weights
from keras_residual.weights.save import save_weights
from keras_residual.xray import Xray, XrayCallback, XrayReport, drop_blocks, xray

if TYPE_CHECKING:
    from keras_residual.deploy.export import export
    from keras_residual.deploy.exported import load_exported
    from keras_residual.training.config import TrainConfig
    from keras_residual.training.train import TrainResult, train

__all__ = [
    "AddMerge",
    "AvgPoolShortcut",
    "CheckpointError",
    "ConcatMerge",
    "DeltaMerge",
    "DropPath",
    "FixupScale",
    "GRNMerge",
    "GRUMerge",
    "HighwayMerge",
    "InputGateMerge",
    "LayerScale",
    "LerpMerge",
    "MagnitudePreservingMerge",
    "MeanMerge",
    "Merge",
    "NormalizedLerpMerge",
    "OrthogonalMerge",
    "OutputGateMerge",
    "Preprocessing",
    "ProjectionShortcut",
    "ResNet",
    "ResNetConfig",
    "ResNetV2",
    "ResNetV2Config",
    "Residual",
    "ResidualPlan",
    "ResidualStack",
    "ScalarBias",
    "Scale",
    "ScaledWSConv1D",
    "ScaledWSConv2D",
    "ScaledWSConv3D",
    "ShakeDrop",
    "ShakeShake",
    "Shortcut",
    "SigmoidTanhMerge",
    "SkipInit",
    "TrainConfig",
    "TrainResult",
    "ValueResidualAttention",
    "WeightedMerge",
    "Xray",
    "XrayCallback",
    "XrayReport",
    "ZeroPadShortcut",
    "__version__",
    "basic_block",
    "bottleneck_block",
    "create_model",
    "depth_rules",
    "disable_compilation_cache",
    "drop_blocks",
    "enable_compilation_cache",
    "export",
    "feature_strides",
    "fold_batch_norm",
    "freeze",
    "layers",
    "list_models",
    "load_exported",
    "load_weights",
    "observe",
    "optimizers",
    "preact_basic_block",
    "preact_bottleneck_block",
    "preprocessing",
    "recipes",
    "residualize",
    "save_weights",
    "series_block",
    "suggest_groups",
    "tabular_block",
    "topologies",
    "train",
    "xray",
]

# What needs an extra is imported when it is first asked for.
_LAZY = {
    "export": "keras_residual.deploy.export",
    "load_exported": "keras_residual.deploy.exported",
    "TrainConfig": "keras_residual.training.config",
    "TrainResult": "keras_residual.training.train",
    "train": "keras_residual.training.train",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
