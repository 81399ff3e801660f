"""Layers called without what Keras's `__call__` does around them, where that would change nothing.

`__call__` converts, checks, names and resolves for some 0.1 ms a layer. A compiled program is without it; eager PyTorch
spends a fifth of a ResNet-50 on it when one picture is classified on one core.
"""

from __future__ import annotations

from typing import Any

import keras
from keras.src.backend.common.masking import get_keras_mask
from keras.src.backend.common.variables import get_autocast_scope

from keras_residual._backend import maps
from keras_residual.layers.batch_norm import BatchNormalization
from keras_residual.layers.symmetric_conv import SymmetricConv2D

_LEAVES = (BatchNormalization, SymmetricConv2D, keras.layers.ReLU)
_RELU = keras.activations.relu


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
        and not maps.has_hooks(layer)
        and get_keras_mask(x) is None
        and keras.distribution.distribution() is None
    )


def applied(layer: keras.Layer, x: Any, training: bool | None, *, owned: bool) -> tuple[Any, bool]:
    """Returns what a layer makes of a tensor, and whether nothing else has that.

    Args:
        layer: A layer that takes one tensor, was built, and gets the shape that it was built for.
        x: The tensor.
        training: The mode.
        owned: Whether nothing else has `x`, so that it may be written over.

    Returns:
        `(outputs, owned)`, or `(None, False)` where Keras has to call the layer.
    """
    kind = type(layer)
    if kind not in _LEAVES or not is_plain(layer, x, training):
        return None, False
    # Another `call` that is set on the layer may keep what it gets and what it returns.
    watched = "call" in vars(layer)
    if kind is BatchNormalization:
        return layer.call(x, training=training), not watched
    if kind is keras.layers.ReLU and owned and not watched and _is_default(layer):
        return maps.rectified(x), True
    return layer.call(x), not watched


def _is_default(relu: Any) -> bool:
    return relu.max_value is None and not relu.negative_slope and not relu.threshold


def added(skip: Any, branch: Any) -> Any:
    """Returns `skip + branch`, where nothing else has the branch."""
    return maps.added(branch, skip)


def activated(activation: Any, x: Any) -> Any:
    """Returns the activation of a tensor that nothing else has."""
    return maps.rectified(x) if activation is _RELU and maps.is_eager(x) else activation(x)
