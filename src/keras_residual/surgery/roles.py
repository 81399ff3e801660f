"""The roles of layers in the choice of groups: mixing, norm, activation, or passing the signal on."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

MIXING = (
    layers.Dense,
    layers.EinsumDense,
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
)
"""Layers that a group is counted by: each output is a weighted sum of several inputs."""

NORMS = (
    layers.BatchNormalization,
    layers.LayerNormalization,
    layers.GroupNormalization,
    layers.RMSNormalization,
    layers.UnitNormalization,
)

ACTIVATIONS = (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU)

PASSING = (
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.AlphaDropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.ActivityRegularization,
    layers.Identity,
)
"""Layers that leave the signal as it is, but for noise."""

NOT_ELEMENTWISE = ("softmax", "log_softmax", "sparsemax", "glu")


def is_body(layer: Any) -> bool:
    """Whether a suggested group may hold the layer."""
    return isinstance(layer, (*MIXING, *NORMS, *ACTIVATIONS, *PASSING))


def holds_a_map(layer: Any) -> bool:
    """Whether the layer has a matrix or a kernel, so that what comes out is another representation."""
    if not isinstance(layer, keras.Layer) or isinstance(layer, (*NORMS, *ACTIVATIONS, layers.Normalization)):
        return False
    return any(len(weight.shape) >= 2 for weight in layer.weights)


def inner_activation(layer: Any) -> str | None:
    """Returns the name of the activation at the end of a layer, if it can be taken out of the layer.

    An activation that is none (`linear`), one that is not elementwise, and one whose output is penalised stay where
    they are.
    """
    activation = getattr(layer, "activation", None)
    if not isinstance(layer, MIXING) or activation is None or layer.activity_regularizer is not None:
        return None
    name = getattr(activation, "name", None) or getattr(activation, "__name__", type(activation).__name__)
    return None if name in ("linear", *NOT_ELEMENTWISE) or isinstance(activation, layers.Softmax) else name
