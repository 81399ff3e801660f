"""Pooling that Keras lacks: blur pooling, and max pooling with the same padding on each side."""

from __future__ import annotations

import functools
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual._arguments import choice, owner_of, whole_number
from keras_residual._backend import max_pool
from keras_residual._errors import bad_argument
from keras_residual._types import Shape, Tensor
from keras_residual.layers.maps import as_data_format, check_rank
from keras_residual.residual.configured import Configured
from keras_residual.residual.serialization import register
from keras_residual.residual.shapes import channel_axis_of, spatial_axes

PADS = ("reflect", "constant")


@register
class BlurPool2D(Configured):
    """Blurs each channel with a binomial filter and keeps every `strides`-th row and column. No weights.

    The filter is the outer product of the binomial coefficients by their sum with itself: for a `pool_size` of 3 that
    of `[1, 2, 1] / 4`. Each side is padded by `(strides + pool_size - 2) // 2` rows or columns: with an odd
    `pool_size` and strides of 1 or 2, a size `n` becomes `ceil(n / strides)`.

    Args:
        strides: Step between the rows and columns that are kept, at least 1.
        pool_size: Side of the filter, at least 2.
        pad: How the border is padded: `"reflect"` mirrors the image at its outermost row or column, `"constant"` pads
            with zeros.
        data_format: `"channels_last"`, `"channels_first"`, or None for `keras.config.image_data_format()`.
        **kwargs: `name` and `dtype`, as for every Keras layer.

    Call arguments:
        inputs: Tensor of shape `(batch, height, width, channels)`, or channels first by `data_format`.

    Output shape:
        The shape of the input, with smaller spatial sizes.

    Raises:
        ValueError: For an argument out of range, and for an input that is not of rank 4 or too small.

    Example:
        >>> y = kr.layers.BlurPool2D()(np.array([0.0, 0.0, 4.0, 0.0] * 4).reshape(1, 4, 4, 1))
        >>> print(keras.ops.convert_to_numpy(y)[0, :, :, 0])
        [[0. 2.]
         [0. 2.]]

    Reference:
        Zhang, Making Convolutional Networks Shift-Invariant Again, 2019. https://arxiv.org/abs/1904.11486, section 3.2
    """

    def __init__(
        self,
        strides: int = 2,
        *,
        pool_size: int = 3,
        pad: str = "reflect",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        owner = owner_of(self)
        self.strides = whole_number(owner, "strides", strides)
        self.pool_size = whole_number(owner, "pool_size", pool_size, least=2)
        self.pad = choice(owner, "pad", pad, PADS)
        self.data_format = as_data_format(owner, data_format)

    @property
    def padding(self) -> int:
        """Number of rows or columns that are added to each side."""
        return (self.strides + self.pool_size - 2) // 2

    def call(self, inputs: Tensor) -> Tensor:
        """Blurs along one axis at a time, by a matrix product.

        For the maps that a ResNet blurs, up to 112 × 112, this is faster on a CPU than a depthwise convolution and its
        gradient, and it needs no padding.
        """
        # Sizes may be new at each eager call.
        self.compute_output_shape(tuple(inputs.shape))
        sizes: Any = ops.shape(inputs)
        if self.data_format == "channels_first":
            columns = ops.matmul(inputs, ops.transpose(self._blur(sizes[3], inputs.dtype)))
            return ops.matmul(self._blur(sizes[2], inputs.dtype), columns)
        batch, height, width, channels = sizes
        rows = ops.reshape(inputs, (batch, height, width * channels))
        rows = ops.matmul(self._blur(height, inputs.dtype), rows)
        rows = ops.reshape(rows, (batch, self._size(height), width, channels))
        return ops.matmul(self._blur(width, inputs.dtype), rows)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the shape of the output."""
        check_rank(owner_of(self), input_shape, (4,))
        shape = list(input_shape)
        for axis in spatial_axes(4, channel_axis_of(self.data_format)):
            size = shape[axis]
            if size is not None:
                self._check_size(size, input_shape)
                shape[axis] = self._size(size)
        return tuple(shape)

    def _check_size(self, size: int, shape: Shape) -> None:
        least = max(1, self.pool_size - 2 * self.padding)
        way_out = "The shape is shown."
        if self.pad == "reflect":
            least = max(least, self.padding + 1)
            way_out += " pad='constant' takes smaller ones."
        if size < least:
            rule = f"a tensor of sizes of at least {least}"
            raise bad_argument(owner_of(self), "inputs", rule, tuple(shape), way_out)

    def _size(self, size: Any) -> Any:
        return (size + 2 * self.padding - self.pool_size) // self.strides + 1

    def _blur(self, size: Any, dtype: Any) -> Any:
        """Returns the matrix of shape `(output size, size)` that blurs along an axis, sizes known or not."""
        arguments = (size, self._size(size), self.strides, self.pool_size, self.padding, self.pad)
        matrix = _constant_matrix(*arguments) if isinstance(size, int) else _matrix(ops, *arguments)
        return ops.cast(ops.convert_to_tensor(matrix), dtype)


def _matrix(xp: Any, size: Any, rows: Any, strides: int, pool_size: int, padding: int, pad: str) -> Any:
    """Returns a matrix of shape `(rows, size)` with the binomial weights, computed by the functions of `xp`."""
    first = xp.expand_dims(xp.arange(rows), 1) * strides - padding
    columns = xp.expand_dims(xp.arange(size), 0)
    total = 0.0
    for i in range(pool_size):
        column = first + i
        if pad == "reflect":
            column = size - 1 - xp.abs(size - 1 - xp.abs(column))
        # With zero padding, a column that does not exist has no weight.
        total = total + xp.where(column == columns, math.comb(pool_size - 1, i) / 2 ** (pool_size - 1), 0.0)
    return total


@functools.lru_cache(maxsize=64)
def _constant_matrix(*arguments: Any) -> np.ndarray:
    return _matrix(np, *arguments).astype("float32")


@register
class SymmetricMaxPool2D(Configured):
    """Max pooling with `pool_size // 2` rows and columns of padding on each side, as in PyTorch's networks.

    Keras's `padding="same"` places the windows differently where the size is even. The padding never wins, so that maps
    with negative values are pooled correctly.

    Args:
        pool_size: Width of the window, at least 1.
        strides: Step between the windows, at least 1.
        data_format: `"channels_last"`, `"channels_first"`, or None for Keras's setting.
        **kwargs: Arguments of every Keras layer.

    Input shape:
        `(batch, height, width, channels)`, or channels first.

    Output shape:
        The same with each size `n` as `(n + 2 * (pool_size // 2) - pool_size) // strides + 1`.

    Raises:
        ValueError: For a number under 1 or an unknown data format.

    Example:
        >>> kr.layers.SymmetricMaxPool2D(3, strides=2)(np.ones((1, 8, 8, 4))).shape
        (1, 4, 4, 4)
    """

    def __init__(self, pool_size: int = 3, strides: int = 2, *, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        owner = owner_of(self)
        self.pool_size = whole_number(owner, "pool_size", pool_size)
        self.strides = whole_number(owner, "strides", strides)
        data_format = data_format or keras.config.image_data_format()
        self.data_format = choice(owner, "data_format", data_format, ("channels_last", "channels_first"))
        self.input_spec = keras.InputSpec(ndim=4)

    def call(self, inputs: Tensor) -> Tensor:
        """Returns the maximum of each window."""
        return max_pool(inputs, width=self.pool_size, strides=self.strides, data_format=self.data_format)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the shape after pooling."""
        sizes = slice(1, 3) if self.data_format == "channels_last" else slice(2, 4)
        shape = list(input_shape)
        reach = 2 * (self.pool_size // 2) - self.pool_size
        shape[sizes] = [None if size is None else (size + reach) // self.strides + 1 for size in shape[sizes]]
        return tuple(shape)
