"""Efficient channel attention: each channel times a gate computed from the means of it and of its neighbours."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_residual._arguments import owner_of, whole_number
from keras_residual._errors import bad_argument
from keras_residual.residual.maps import MapLayer
from keras_residual.residual.serialization import register
from keras_residual.residual.shapes import Shape

GAMMA = 2
BETA = 1


@register
class EfficientChannelAttention(MapLayer):
    """Multiplies each channel by a gate: `y = x * sigmoid(w * mean(x))`, with a convolution over the channels.

    The mean is that of each channel over all positions. The convolution has `kernel_size` weights in all, no bias, and
    takes channels beyond the first and the last as 0.

    Args:
        kernel_size: Number of neighbouring channels, an odd number; None takes it from the number of channels `C`: the
            odd number at or next above the whole part of `|log2(C) + 1| / 2`, and at least 3.
        data_format: `"channels_last"`, `"channels_first"`, or None for `keras.config.image_data_format()`.
        **kwargs: `name`, `dtype` and `trainable`, as every Keras layer takes them.

    Call arguments:
        inputs: Tensor of shape `(batch, *sizes, channels)` with 1 to 3 sizes, or channels first by `data_format`.
        mask: Booleans of shape `(batch, *sizes)`: the mean is over the positions where they are true.

    Output shape:
        The shape of the input.

    Raises:
        ValueError: For an even `kernel_size`, and for an input of another rank or of unknown channels.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from keras_residual.layers.efficient_channel_attention import EfficientChannelAttention
        >>> layer = EfficientChannelAttention()
        >>> tuple(layer(np.ones((1, 7, 7, 256))).shape)
        (1, 7, 7, 256)
        >>> tuple(layer.conv.kernel.shape)
        (5, 1, 1)

    Reference:
        Wang et al., ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks, 2019.
        https://arxiv.org/abs/1910.03151, eq. 9 and 12
    """

    def __init__(self, kernel_size: int | None = None, *, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(data_format=data_format, **kwargs)
        if kernel_size is not None:
            kernel_size = whole_number(owner_of(self), "kernel_size", kernel_size)
            if kernel_size % 2 == 0:
                way_out = f"Take {kernel_size + 1}, or None for a size by the number of channels."
                raise bad_argument(owner_of(self), "kernel_size", "an odd number", kernel_size, way_out)
        self.kernel_size = kernel_size

    def build(self, input_shape: Shape) -> None:
        """Adds the convolution."""
        channels = self.channels_of(input_shape)
        conv = keras.layers.Conv1D(
            1,
            self.kernel_size or adaptive_kernel_size(channels),
            padding="same",
            data_format="channels_last",
            use_bias=False,
            dtype=self.dtype_policy,
            name="conv",
        )
        self.conv = self._made("conv", conv)
        self.conv.build((None, channels, 1))

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Multiplies."""
        means = ops.expand_dims(self.mean(inputs, mask), -1)
        gates: Any = ops.sigmoid(ops.squeeze(self.conv(means), -1))
        return inputs * self.over_positions(gates, inputs)


def adaptive_kernel_size(channels: int) -> int:
    """Returns the odd kernel size for a number of channels: 3 to 63 of them have 3, 512 have 5, 2048 have 7."""
    size = int(abs(math.log2(channels) + BETA) / GAMMA)
    return max(size if size % 2 else size + 1, 3)
