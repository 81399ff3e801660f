"""What the layers that stand in for a 3×3 convolution share: their arguments, their parts and their output shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_residual._arguments import owner_of, whole_number
from keras_residual._errors import bad_argument, wrong_type
from keras_residual.residual.batch_norm import BatchNormalization
from keras_residual.residual.configured import Configured
from keras_residual.residual.maps import as_data_format, channel_axis_of, check_rank
from keras_residual.residual.shapes import Shape, spatial_axes
from keras_residual.residual.symmetric_conv import SymmetricConv2D, strided_shape


class CompositeConv2D(Configured):
    """A layer of several convolutions in the place of one. Abstract.

    Args:
        strides: Stride on both axes, at least 1.
        dilation_rate: Factor on the distance of the taps, at least 1.
        groups: Number of groups of channels that do not see one another, at least 1.
        data_format: `"channels_last"` or `"channels_first"`; None for `keras.config.image_data_format()`.
    """

    output_channels: int

    def __init__(
        self, *, strides: int, dilation_rate: int, groups: int, data_format: str | None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        owner = owner_of(self)
        self.strides = whole_number(owner, "strides", strides)
        self.dilation_rate = whole_number(owner, "dilation_rate", dilation_rate)
        self.groups = whole_number(owner, "groups", groups)
        self.data_format = as_data_format(owner, data_format)
        self.channel_axis = channel_axis_of(self.data_format)

    def input_channels(self, shape: Shape, rule: str, valid: Callable[[int], bool]) -> int:
        """Returns the number of input channels; raises where it is not known or not valid."""
        check_rank(owner_of(self), shape, (4,))
        channels = shape[self.channel_axis]
        if channels is None or not valid(channels):
            raise bad_argument(owner_of(self), "inputs", f"a tensor with {rule}", tuple(shape), "The shape is shown.")
        return channels

    def convolution(self, filters: int, kernel_size: int, name: str, **arguments: Any) -> SymmetricConv2D:
        """Returns a convolution, without bias unless told, with the initial values of the published networks."""
        made = SymmetricConv2D(
            filters,
            kernel_size,
            name=name,
            data_format=self.data_format,
            kernel_initializer=keras.initializers.VarianceScaling(2.0, mode="fan_out"),
            dtype=self.dtype_policy,
            **{"use_bias": False, **arguments},
        )
        return self._made(name, made)

    def batch_norm(self, name: str) -> BatchNormalization:
        """Returns a batch norm with the epsilon and the momentum of the published networks."""
        # PyTorch's momentum of 0.1 is Keras's 0.9.
        made = BatchNormalization(
            axis=self.channel_axis, epsilon=1e-5, momentum=0.9, name=name, dtype=self.dtype_policy
        )
        return self._made(name, made)

    def pooled_shape(self, channels: int) -> Shape:
        """Returns the shape of one vector of channels a sample, as a map of one position."""
        return (None, channels, 1, 1) if self.channel_axis == 1 else (None, 1, 1, channels)

    def pooled(self, parts: Sequence[Any]) -> Any:
        """Returns the mean over all positions of the sum of maps, as a map of one position."""
        axes = tuple(spatial_axes(4, self.channel_axis))
        return total([ops.mean(part, axis=axes, keepdims=True) for part in parts])

    def split(self, x: Any, parts: int) -> list[Any]:
        """Returns a map's channels in equal parts."""
        found: Any = ops.split(x, parts, axis=self.channel_axis)
        return found

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the shape with the output's channels and each spatial size `n` as `ceil(n / strides)`."""
        return strided_shape(tuple(input_shape), self.strides, self.output_channels, self.channel_axis)


def total(parts: Sequence[Any]) -> Any:
    """Returns the sum of tensors."""
    result = parts[0]
    for part in parts[1:]:
        result = result + part
    return result


def multiple(owner: str, argument: str, value: Any, of: str, divisor: int) -> int:
    """Returns a number of at least 1; raises where `divisor`, the argument `of`, does not divide it."""
    if whole_number(owner, argument, value) % divisor:
        raise bad_argument(owner, argument, f"a multiple of `{of}`, which is {divisor}", value)
    return value


def layer_or_none(owner: str, argument: str, value: Any) -> keras.Layer | None:
    """Returns a layer or None; raises for anything else."""
    if value is not None and not isinstance(value, keras.Layer):
        raise wrong_type(owner, argument, "a Keras layer or None", value)
    return value


def reduced_channels(channels: float, divisor: int, least: int) -> int:
    """Returns the multiple of `divisor` nearest to `channels`, at least `least` and more than 0.9 times `channels`.

    Example:
        >>> from keras_residual.layers.composite_conv import reduced_channels
        >>> [reduced_channels(channels, divisor=8, least=8) for channels in (3, 12, 11.5, 20, 100)]
        [8, 16, 16, 24, 104]
    """
    nearest = max(least, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest
