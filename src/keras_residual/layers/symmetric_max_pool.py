"""Max pooling that reaches over each edge alike, and to which the edge never counts."""

from __future__ import annotations

from typing import Any

import keras

from keras_residual._arguments import choice, owner_of, whole_number
from keras_residual._backend import maps
from keras_residual.residual.configured import Configured
from keras_residual.residual.serialization import register
from keras_residual.residual.shapes import Shape


@register
class SymmetricMaxPool2D(Configured):
    """Max pooling whose windows reach over each edge by `pool_size // 2`, as PyTorch's nets have it.

    Keras's `padding="same"` places the windows differently where the size is even. What lies beyond the edge never
    wins, so that maps with negative values come out right.

    Args:
        pool_size: Width of the window, at least 1.
        strides: Distance of the windows, at least 1.
        data_format: `"channels_last"`, `"channels_first"`, or None for Keras's setting.
        **kwargs: What every Keras layer takes.

    Input shape:
        `(batch, height, width, channels)`, or channels first.

    Output shape:
        The same with each size `n` as `(n + 2 * (pool_size // 2) - pool_size) // strides + 1`.

    Raises:
        ValueError: For a number under 1 or an unknown data format.

    Example:
        >>> SymmetricMaxPool2D(3, strides=2)(np.ones((1, 8, 8, 4))).shape
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

    def call(self, inputs: Any) -> Any:
        """Pools."""
        return maps.max_pooled(inputs, width=self.pool_size, strides=self.strides, data_format=self.data_format)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the shape after pooling."""
        sizes = slice(1, 3) if self.data_format == "channels_last" else slice(2, 4)
        shape = list(input_shape)
        reach = 2 * (self.pool_size // 2) - self.pool_size
        shape[sizes] = [None if size is None else (size + reach) // self.strides + 1 for size in shape[sizes]]
        return tuple(shape)
