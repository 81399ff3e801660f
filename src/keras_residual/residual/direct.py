"""Decides which layers are called without Keras's `__call__`, where that changes nothing.

`__call__` takes some 0.1 ms per layer to convert and check arguments and to open scopes. Compiled programs do not pay
for that, but eager PyTorch spends a fifth of its time on it when a ResNet-50 classifies one image on one core. Readers
of the layers may skip this file: without it, every number stays the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_residual import _backend
from keras_residual._keras import get_autocast_scope, get_keras_mask
from keras_residual._types import Tensor
from keras_residual.residual.merges.geometric import OrthogonalMerge
from keras_residual.residual.merges.sums import AddMerge, ConcatMerge, MagnitudePreservingMerge, MeanMerge
from keras_residual.residual.norms import BatchNormalization
from keras_residual.residual.symmetric_conv import SymmetricConv2D

_MERGES = (AddMerge, ConcatMerge, MagnitudePreservingMerge, MeanMerge, OrthogonalMerge)
_LEAVES = (BatchNormalization, SymmetricConv2D, keras.layers.ReLU)


def is_direct(layer: keras.Layer, x: Tensor, training: bool | None) -> bool:
    """Returns whether `call` below does what `layer(x, training=training)` does.

    Args:
        layer: A layer that was built, and gets the shape that it was built for.
        x: Its input, or the list of the two inputs of a merge.
        training: None means the mode of the surrounding call, which only `__call__` knows.
    """
    if type(layer) in _MERGES:  # they have no weights, and need only the cast of `__call__`
        return layer.built and not _is_watched(layer)
    return type(layer) in _LEAVES and is_plain(layer, x, training)


def is_plain(layer: keras.Layer, x: Tensor, training: bool | None) -> bool:
    """Returns whether `layer.call` does what `layer(x, training=training)` does; arguments as in `is_direct`.

    The layer must not define a `__call__` that does more than check arguments.
    """
    if not _backend.is_eager_torch(x) or training is None or not layer.built:
        return False
    scope, dtype = get_autocast_scope(), layer.compute_dtype
    return (
        dtype == layer.variable_dtype == keras.backend.standardize_dtype(x.dtype)
        and (scope is None or scope.dtype == dtype)
        and layer._remat_mode is None
        and not _is_watched(layer)
        and get_keras_mask(x) is None
        and keras.distribution.distribution() is None
    )


def _is_watched(layer: keras.Layer) -> bool:
    """Returns whether something observes the layer's calls: a regularizer, a hook, or a `call` set on the instance."""
    return layer.activity_regularizer is not None or "call" in vars(layer) or _backend.has_hooks(layer)


def call(layer: Any, x: Tensor, training: bool | None, is_fresh: bool) -> Any:
    """Returns the output of a layer for which `is_direct` holds.

    Args:
        layer: The layer.
        x: Its input.
        training: Whether it acts as in training.
        is_fresh: Whether nothing else refers to `x`.
    """
    if type(layer) in _MERGES:
        dtype = layer.compute_dtype
        return layer.call([y if keras.backend.standardize_dtype(y.dtype) == dtype else ops.cast(y, dtype) for y in x])
    if type(layer) is BatchNormalization:
        return layer.call(x, training=training)
    if type(layer) is keras.layers.ReLU and _is_default(layer):
        return activate(keras.activations.relu, x, is_fresh)
    return layer.call(x)


def makes_fresh(layer: Any) -> bool:
    """Returns whether nothing but the caller refers to the output of a layer for which `is_direct` holds."""
    if type(layer) is SymmetricConv2D:
        return layer.activation is keras.activations.linear
    return type(layer) is not keras.layers.ReLU


def activate(activation: Callable[[Any], Any], x: Tensor, is_fresh: bool) -> Any:
    """Returns `activation(x)`, in place where nothing else refers to `x` and no gradient can be asked for."""
    if is_fresh and activation is keras.activations.relu and _backend.is_eager_torch(x):
        return _backend.relu_in_place(x)
    return activation(x)


def _is_default(relu: Any) -> bool:
    return relu.max_value is None and not relu.negative_slope and not relu.threshold
