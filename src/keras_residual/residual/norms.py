"""Normalisation layers by name, on the channel axis of the residual connection that asks for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import keras

from keras_residual.residual.batch_norm import BatchNormalization


def _group_norm(channels: int, **kwargs: Any) -> keras.Layer:
    # 32 groups as in the paper, or as many as divide the channels.
    return keras.layers.GroupNormalization(groups=math.gcd(32, channels), **kwargs)


NORMS: MappingProxyType[str, Callable[..., keras.Layer]] = MappingProxyType(
    {
        "batch_norm": lambda channels, **kwargs: BatchNormalization(**kwargs),
        "layer_norm": lambda channels, **kwargs: keras.layers.LayerNormalization(**kwargs),
        "group_norm": _group_norm,
        "rms_norm": lambda channels, **kwargs: keras.layers.RMSNormalization(**kwargs),
    }
)
"""Names that `norm=` takes, with Keras's own defaults.

Batch: Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167. Layer: Ba et al. 2016, https://arxiv.org/abs/1607.06450.
Group: Wu & He 2018, https://arxiv.org/abs/1803.08494; 32 groups, or their greatest common divisor with the channels.
Root mean square: Zhang & Sennrich 2019, https://arxiv.org/abs/1910.07467.
"""


def make_norm(norm: str | keras.Layer, *, channels: int, axis: int, name: str, dtype: Any) -> keras.Layer:
    """Returns a new norm layer.

    Args:
        norm: A name from `NORMS`, or a layer of which a fresh copy is made from its configuration.
        channels: Number of channels, at least 1.
        axis: Axis of the channels.
        name: Name of the new layer.
        dtype: Dtype policy of a norm that is made by name; a copy keeps its own.
    """
    if isinstance(norm, str):
        return NORMS[norm](channels, axis=axis, name=name, dtype=dtype)
    return type(norm).from_config({**norm.get_config(), "name": name})
