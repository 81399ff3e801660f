"""A 2-D convolution with the same zero padding on both sides, also with strides and dilation together."""

from __future__ import annotations

from typing import Any

import keras

from keras_residual._arguments import owner_of, whole_number
from keras_residual._backend import convolve
from keras_residual._errors import bad_argument
from keras_residual._types import Shape, Tensor
from keras_residual.residual.configured import Configured
from keras_residual.residual.serialization import register
from keras_residual.residual.shapes import channel_axis_of, spatial_axes


@register
class SymmetricConv2D(Configured, keras.layers.Conv2D):
    """A 2-D convolution that pads each side with `dilation_rate * (kernel_size // 2)` zeros, as PyTorch's networks do.

        y[i] = sum over t of w[t] x[strides * i + dilation_rate * (t - kernel_size // 2)]

    With strides and an even size, Keras's `padding="same"` pads more at the end, and Keras has no convolution with both
    strides and dilation.

    Args:
        filters: Number of output channels, at least 1.
        kernel_size: Kernel size on both axes, an odd number.
        strides: Stride on both axes, at least 1.
        dilation_rate: Dilation on both axes, at least 1.
        **kwargs: Other arguments of `keras.layers.Conv2D`, except `padding`.

    Call arguments:
        inputs: Tensor of shape `(batch, height, width, channels)`, or channels first by `data_format`.

    Output shape:
        `filters` channels; each spatial size `n` becomes `ceil(n / strides)`.

    Raises:
        ValueError: If `kernel_size` is even, or a number is less than 1.

    Example:
        >>> kr.layers.SymmetricConv2D(8, 3, strides=2, dilation_rate=2)(np.ones((1, 6, 5, 4))).shape
        (1, 3, 3, 8)

    Reference:
        Yu & Koltun, Multi-Scale Context Aggregation by Dilated Convolutions, 2015. https://arxiv.org/abs/1511.07122
    """

    def __init__(
        self, filters: int, kernel_size: int, *, strides: int = 1, dilation_rate: int = 1, **kwargs: Any
    ) -> None:
        # Set afterwards: Keras rejects strides together with dilation.
        super().__init__(filters, kernel_size, dilation_rate=dilation_rate, **kwargs)
        owner = owner_of(self)
        odd_width(owner, "kernel_size", kernel_size)
        whole_number(owner, "dilation_rate", dilation_rate)
        self.strides = (whole_number(owner, "strides", strides),) * 2

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """Returns the convolution of the padded inputs."""
        return convolve(
            inputs,
            kernel,
            strides=self.strides[0],
            dilation=self.dilation_rate[0],
            data_format=self.data_format,
        )

    def compute_output_shape(self, input_shape: Shape) -> Any:
        """Returns the shape with `filters` channels and spatial sizes `ceil(n / strides)`."""
        return strided_shape(input_shape, self.strides[0], self.filters, channel_axis_of(self.data_format))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        config = super().get_config()
        del config["padding"]
        each = {name: config[name][0] for name in ("kernel_size", "strides", "dilation_rate")}
        return {**config, **each}


def strided_shape(shape: Shape, strides: int, channels: int, axis: int) -> Shape:
    """Returns a shape with `channels` on `axis` and spatial sizes `ceil(n / strides)`."""
    sizes = list(shape)
    for spatial in spatial_axes(len(sizes), axis):
        size = sizes[spatial]
        sizes[spatial] = None if size is None else -(-size // strides)
    sizes[axis] = channels
    return tuple(sizes)


def odd_width(owner: str, argument: str, value: Any, least: int = 1) -> int:
    """Returns a kernel size; raises a `ValueError` unless it is odd and at least `least`."""
    if whole_number(owner, argument, value, least) % 2 == 0:
        raise bad_argument(owner, argument, "an odd number", value)
    return value
