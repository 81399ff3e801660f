"""Operations on feature maps by `keras.ops`, for the backends that compile them well."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from keras_residual._types import Tensor

HAS_BATCH_NORM = False


def convolve(x: Tensor, kernel: Tensor, *, strides: int, dilation: int, data_format: str) -> Tensor:
    """Returns the convolution with zeros on each side."""
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


def max_pool(x: Tensor, *, width: int, strides: int, data_format: str) -> Tensor:
    """Returns the maxima over windows."""
    padded: Any = ops.pad(x, _margins(width // 2, data_format), constant_values=float("-inf"))
    return ops.max_pool(padded, width, strides, "valid", data_format)


def normalize(*_: Any, **__: Any) -> Any:
    """Is not there: see `HAS_BATCH_NORM`."""
    raise NotImplementedError


normalize_by_batch = normalize


def is_eager_torch(x: Tensor) -> bool:
    """Returns False: programs are compiled or traced."""
    del x
    return False


def has_hooks(layer: Any) -> bool:
    """Returns False: the backend knows no modules."""
    del layer
    return False


def relu_in_place(x: Tensor) -> Tensor:
    """Returns `max(x, 0)`: tensors are not written to."""
    return ops.relu(x)


def _every(step: int, x: Tensor, data_format: str) -> Any:
    """Returns every `step`-th position of a map, beginning with the first."""
    if step == 1:
        return x
    return x[:, :, ::step, ::step] if data_format == "channels_first" else x[:, ::step, ::step]


def _margins(reach: int, data_format: str) -> list[tuple[int, int]]:
    margins = [(0, 0), (reach, reach), (reach, reach)]
    margins.insert(1 if data_format == "channels_first" else 3, (0, 0))
    return margins
