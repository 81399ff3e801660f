"""Operations on feature maps that a backend does better than `keras.ops`: convolution, max pooling and batch norm."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

_torch: Any = None
if keras.backend.backend() == "torch":
    from keras_residual._backend import torch_maps as _torch

HAS_BATCH_NORM = _torch is not None
"""Whether `normalized` and `normalized_by_batch` can be called: the backend has a batch norm of one operation."""


def convolved(x: Any, kernel: Any, *, strides: int, dilation: int, data_format: str) -> Any:
    """Returns the convolution of maps with `dilation * (width // 2)` zeros on each side.

    On PyTorch the maps are not copied, and without gradients the kernel is not either. For that a kernel given as a
    variable is laid out anew in memory when the mode changes; its shape and its values stay as they are.

    Args:
        x: Tensor of shape `(batch, height, width, channels)`, or channels first.
        kernel: Tensor or variable of shape `(width, width, channels of a group, filters)`, of the dtype of `x` and of
            odd width.
        strides: Stride on both axes, at least 1.
        dilation: Distance of neighbouring taps, at least 1.
        data_format: `"channels_last"` or `"channels_first"`.
    """
    if _torch is not None:
        return _torch.convolved(x, kernel, strides, dilation, data_format)
    # Only every `common`-th input is read, so the rest can go first. Keras has no convolution with both a stride and
    # a dilation.
    common = math.gcd(strides, dilation)
    strides, dilation = strides // common, dilation // common
    x = _every(common, x, data_format)
    if strides == 1 or dilation > 1:
        y = ops.conv(x, kernel, padding="same", dilation_rate=dilation, data_format=data_format)
        return _every(strides, y, data_format)
    reach = kernel.shape[0] // 2
    x = ops.pad(x, _margins(reach, data_format)) if reach else x
    return ops.conv(x, kernel, strides=strides, padding="valid", data_format=data_format)


def max_pooled(x: Any, *, width: int, strides: int, data_format: str) -> Any:
    """Returns the maxima over windows that reach over each edge by `width // 2`, where nothing counts.

    Args:
        x: Tensor of shape `(batch, height, width, channels)`, or channels first.
        width: Width of the windows, at least 1.
        strides: Distance of the windows, at least 1.
        data_format: `"channels_last"` or `"channels_first"`.
    """
    if _torch is not None:
        return _torch.max_pooled(x, width, strides, data_format)
    padded: Any = ops.pad(x, _margins(width // 2, data_format), constant_values=float("-inf"))
    return ops.max_pool(padded, width, strides, "valid", data_format)


def normalized(x: Any, mean: Any, variance: Any, *, gamma: Any, beta: Any, epsilon: float, axis: int) -> Any:
    """Returns `gamma * (x - mean) / sqrt(variance + epsilon) + beta`, computed in float32 at least.

    Args:
        x: Tensor of rank 2 or more.
        mean: Variable of shape `(channels,)`.
        variance: Variable of shape `(channels,)`.
        gamma: Variable of shape `(channels,)`, or None for 1.
        beta: Variable of shape `(channels,)`, or None for 0.
        epsilon: Added to the variance.
        axis: Axis of the channels, 1 or -1.
    """
    return _torch.normalized(x, mean, variance, gamma, beta, epsilon, axis)


def normalized_by_batch(x: Any, *, gamma: Any, beta: Any, epsilon: float, axis: int) -> tuple[Any, Any, Any]:
    """Returns what `normalized` does with the mean and the variance of `x`, and these two, which have no gradient.

    Args:
        x: Tensor of rank 2 or more.
        gamma: Variable of shape `(channels,)`, or None for 1.
        beta: Variable of shape `(channels,)`, or None for 0.
        epsilon: Added to the variance.
        axis: Axis of the channels, 1 or -1.
    """
    return _torch.normalized_by_batch(x, gamma, beta, epsilon, axis)


def is_eager(x: Any) -> bool:
    """Returns whether `x` is a tensor whose operations run one by one, at once."""
    return _torch is not None and _torch.is_eager(x)


def has_hooks(layer: keras.Layer) -> bool:
    """Returns whether something of the backend listens to calls of the layer."""
    return _torch is not None and _torch.has_hooks(layer)


def rectified(x: Any) -> Any:
    """Returns `max(x, 0)` of an eager tensor that nobody else has: in its memory, where no gradient is asked for."""
    return _torch.rectified(x)


def _every(step: int, x: Any, data_format: str) -> Any:
    """Returns every `step`-th position of a map, beginning with the first."""
    if step == 1:
        return x
    return x[:, :, ::step, ::step] if data_format == "channels_first" else x[:, ::step, ::step]


def _margins(reach: int, data_format: str) -> list[tuple[int, int]]:
    margins = [(0, 0), (reach, reach), (reach, reach)]
    margins.insert(1 if data_format == "channels_first" else 3, (0, 0))
    return margins
