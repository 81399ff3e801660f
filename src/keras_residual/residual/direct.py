"""Layers called without what Keras's `__call__` does around them, where that would change nothing.

`__call__` converts, checks, names and resolves for some 0.1 ms a layer. A compiled program is without it; eager PyTorch
spends a fifth of a ResNet-50 on it when one picture is classified on one core. A reader of the layers may skip this
file: without it every number stays the same.
"""

from __future__ import annotations

from typing import Any

import keras

from keras_residual._backend import maps
from keras_residual._keras import get_autocast_scope, get_keras_mask
from keras_residual.residual.merges import AddMerge
from keras_residual.residual.norms import BatchNormalization
from keras_residual.residual.symmetric_conv import SymmetricConv2D

_CONVOLUTION_OR_NORM = (BatchNormalization, SymmetricConv2D)
_LEAVES = (*_CONVOLUTION_OR_NORM, keras.layers.ReLU)


def is_plain(layer: keras.Layer, x: Any, training: bool | None) -> bool:
    """Returns whether `layer.call` returns what `layer(x, training=training)` does.

    Args:
        layer: A layer that has no `__call__` of its own, was built, and gets the shape that it was built for.
        x: Its input.
        training: None stands for the mode of the call around it, which only `__call__` knows.
    """
    if not maps.is_eager(x) or training is None or not layer.built:
        return False
    scope, dtype = get_autocast_scope(), layer.compute_dtype
    return (
        dtype == layer.variable_dtype == keras.backend.standardize_dtype(x.dtype)
        and (scope is None or scope.dtype == dtype)
        and layer.activity_regularizer is None
        and layer._remat_mode is None
        and "call" not in vars(layer)  # another `call` that somebody set, to see what goes through
        and not maps.has_hooks(layer)
        and get_keras_mask(x) is None
        and keras.distribution.distribution() is None
    )


def is_leaf(layer: keras.Layer, x: Any, training: bool | None) -> bool:
    """Returns whether `call_leaf` does what `layer(x, training=training)` does; arguments as in `is_plain`."""
    return type(layer) in _LEAVES and is_plain(layer, x, training)


def call_leaf(layer: Any, x: Any, training: bool | None, before: keras.Layer | None) -> Any:
    """Returns the output of a layer for which `is_leaf` is true.

    Args:
        layer: The layer.
        x: Its input.
        training: Whether it acts as in training.
        before: The leaf whose output `x` is and that was called just before, or None.
    """
    if type(layer) is BatchNormalization:
        return layer.call(x, training=training)
    if type(layer) is keras.layers.ReLU and type(before) in _CONVOLUTION_OR_NORM and _is_default(layer):
        return maps.rectified(x)  # nobody else has the output of the convolution or norm
    return layer.call(x)


def activate(activation: Any, x: Any, before: keras.Layer) -> Any:
    """Returns the activation of a layer's output.

    Args:
        activation: A function.
        x: The output.
        before: The layer.
    """
    if activation is keras.activations.relu and type(before) is AddMerge and is_plain(before, x, False):
        return maps.rectified(x)  # nobody else has the output of a sum
    return activation(x)


def _is_default(relu: Any) -> bool:
    return relu.max_value is None and not relu.negative_slope and not relu.threshold
