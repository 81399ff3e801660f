"""Norms by name, on the channel axis of a connection, and batch normalization as one operation."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import keras

from keras_residual import _backend
from keras_residual._types import Tensor
from keras_residual.residual.serialization import register


@register
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` that PyTorch computes in one operation.

    Weights, arguments and results are those of Keras's layer, and weights of one load into the other. On PyTorch,
    Keras's layer takes eight operations; so does this one with a mask, renormalization, or channels in an axis other
    than 1 or the last. On other backends it is Keras's layer.

    Args:
        **kwargs: Arguments of `keras.layers.BatchNormalization`.

    Call arguments:
        inputs: Tensor of rank 2 or more.
        training: Whether to use batch statistics and update the moving ones.
        mask: Booleans of the shape of `inputs` without its last axis, True where a position is valid.

    Output shape:
        The shape of the input.

    Raises:
        ValueError: For arguments that Keras's layer rejects.

    Example:
        >>> BatchNormalization(epsilon=1e-5)(np.ones((2, 4, 4, 8))).shape
        (2, 4, 4, 8)

    Reference:
        Ioffe & Szegedy, Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift,
        2015. https://arxiv.org/abs/1502.03167, algorithms 1 and 2
    """

    def call(self, inputs: Tensor, training: bool | None = None, mask: Any = None) -> Tensor:
        """Returns the normalized inputs."""
        axis = -1 if self.axis == len(inputs.shape) - 1 else self.axis
        if not _backend.HAS_BATCH_NORM or mask is not None or self.renorm or axis not in (1, -1):
            return super().call(inputs, training=training, mask=mask)
        arguments: dict[str, Any] = {"gamma": self.gamma, "beta": self.beta, "epsilon": self.epsilon, "axis": axis}
        if not (training and self.trainable):
            outputs = _backend.normalize(inputs, self.moving_mean, self.moving_variance, **arguments)
        else:
            outputs, mean, variance = _backend.normalize_by_batch(inputs, **arguments)
            pairs: Any = ((self.moving_mean, mean), (self.moving_variance, variance))
            for moving, value in pairs:
                before: Any = keras.ops.cast(moving, value.dtype)
                moving.assign(before * self.momentum + value * (1.0 - self.momentum))
        return keras.ops.cast(outputs, self.compute_dtype)


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
        norm: A name from `NORMS`, or a layer to be copied from its configuration.
        channels: Number of channels, at least 1.
        axis: Axis of the channels.
        name: Name of the new layer.
        dtype: Dtype policy of a norm that is made by name; a copy keeps its own.
    """
    if isinstance(norm, str):
        return NORMS[norm](channels, axis=axis, name=name, dtype=dtype)
    return type(norm).from_config({**norm.get_config(), "name": name})
