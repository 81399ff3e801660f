"""Layers of several convolutions in place of one: their base class, and the multi-scale convolution of Res2Net."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_residual._arguments import flag, owner_of, whole_number
from keras_residual._errors import bad_argument, wrong_type
from keras_residual._types import Shape, Tensor
from keras_residual.layers.maps import as_data_format, check_rank
from keras_residual.residual.configured import Configured
from keras_residual.residual.norms import BatchNormalization
from keras_residual.residual.serialization import register
from keras_residual.residual.shapes import channel_axis_of, spatial_axes
from keras_residual.residual.symmetric_conv import SymmetricConv2D, strided_shape


class CompositeConv2D(Configured):
    """A layer of several convolutions in place of one. Abstract.

    Args:
        strides: Stride on both axes, at least 1.
        dilation_rate: Factor on the dilation of each convolution, at least 1.
        groups: Number of groups of channels that are convolved separately, at least 1.
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
        """Returns the number of input channels; raises a `ValueError` if it is unknown or invalid."""
        check_rank(owner_of(self), shape, (4,))
        channels = shape[self.channel_axis]
        if channels is None or not valid(channels):
            raise bad_argument(owner_of(self), "inputs", f"a tensor with {rule}", tuple(shape), "The shape is shown.")
        return channels

    def convolution(self, filters: int, kernel_size: int, name: str, **arguments: Any) -> SymmetricConv2D:
        """Returns a convolution, by default without bias, initialized as in the published networks."""
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
        """Returns the shape of one vector of channels per sample, as a map of one position."""
        return (None, channels, 1, 1) if self.channel_axis == 1 else (None, 1, 1, channels)

    def pool(self, parts: Sequence[Any]) -> Tensor:
        """Returns the mean over all positions of the sum of maps, as a map of one position."""
        axes = tuple(spatial_axes(4, self.channel_axis))
        return total([ops.mean(part, axis=axes, keepdims=True) for part in parts])

    def split(self, x: Tensor, parts: int) -> list[Any]:
        """Returns a map, split along its channels into equal parts."""
        found: Any = ops.split(x, parts, axis=self.channel_axis)
        return found

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the shape with the output's channels and each spatial size `n` as `ceil(n / strides)`."""
        return strided_shape(tuple(input_shape), self.strides, self.output_channels, self.channel_axis)


@register
class MultiScaleConv2D(CompositeConv2D):
    """The convolution of Res2Net: of `scale` parts of the channels, the output of each is added to the next.

        y_1 = K_1(x_1),   y_i = K_i(x_i + y_(i-1)),   y_scale = x_scale,   K_i = relu(norm(3×3 convolution))

    Each part has a larger receptive field than the one before it. The first block of a stage changes the shapes: there
    the parts are independent, `y_i = K_i(x_i)`, and the last part is averaged over 3×3 windows of the same stride; the
    zeros of the padding count.

    The sub-layers are `conv0`, `norm0`, `conv1`, …: one of each for every part but the last.

    Args:
        filters_per_scale: Number of channels of a part, a multiple of `groups`.
        scale: Number of parts, at least 2.
        strides: Stride, at least 1; more than 1 needs `first`.
        dilation_rate: Dilation of the convolutions, at least 1.
        groups: Number of groups of each convolution, at least 1.
        first: Whether this is the first block of a stage.
        data_format: `"channels_last"` or `"channels_first"`; None for `keras.config.image_data_format()`.
        **kwargs: `name` and `dtype`, as for every Keras layer.

    Call arguments:
        inputs: Tensor of shape `(batch, height, width, scale * filters_per_scale)`, or channels first by `data_format`.
        training: Whether the norms take the statistics of the batch.

    Output shape:
        As many channels as the input has, and each spatial size `n` as `ceil(n / strides)`.

    Raises:
        ValueError: If a number is out of its range, or the input has another number of channels.

    Example:
        >>> kr.layers.MultiScaleConv2D(4, scale=3, strides=2, first=True)(np.ones((1, 8, 8, 12))).shape
        (1, 4, 4, 12)

    Reference:
        Gao et al., Res2Net: A New Multi-scale Backbone Architecture, 2019. https://arxiv.org/abs/1904.01169, eq. 1.
        There the first part is passed on and the last convolved; the authors' code, and this layer, do the reverse.
    """

    def __init__(
        self,
        filters_per_scale: int,
        *,
        scale: int = 4,
        strides: int = 1,
        dilation_rate: int = 1,
        groups: int = 1,
        first: bool = False,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(strides=strides, dilation_rate=dilation_rate, groups=groups, data_format=data_format, **kwargs)
        owner = owner_of(self)
        self.filters_per_scale = multiple_of(owner, "filters_per_scale", filters_per_scale, "groups", self.groups)
        self.scale = whole_number(owner, "scale", scale, 2)
        self.first = flag(owner, "first", first)
        if self.strides > 1 and not self.first:
            raise bad_argument(owner, "strides", "1 where the parts are added", strides, "Pass first=True.")
        self.output_channels = self.scale * self.filters_per_scale

    def build(self, input_shape: Shape) -> None:
        """Makes the sub-layers."""
        width = self.output_channels
        self.input_channels(input_shape, f"scale * filters_per_scale, {width}, channels", lambda n: n == width)
        shape, maps = list(input_shape), list(self.compute_output_shape(input_shape))
        shape[self.channel_axis] = maps[self.channel_axis] = self.filters_per_scale
        self.convs: list[keras.Layer] = []
        self.norms: list[keras.Layer] = []
        for part in range(self.scale - 1):
            window = {"strides": self.strides, "dilation_rate": self.dilation_rate, "groups": self.groups}
            self.convs.append(self.convolution(self.filters_per_scale, 3, f"conv{part}", **window))
            self.norms.append(self.batch_norm(f"norm{part}"))
            self.convs[-1].build(tuple(shape))
            self.norms[-1].build(tuple(maps))

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Returns the outputs of all parts, concatenated."""
        *parts, last = self.split(inputs, self.scale)
        outputs: list[Any] = []
        for part, conv, norm in zip(parts, self.convs, self.norms, strict=True):
            given = part if self.first or not outputs else part + outputs[-1]
            outputs.append(ops.relu(norm(conv(given), training=training)))
        return ops.concatenate([*outputs, self._pool(last) if self.first else last], axis=self.channel_axis)

    def _pool(self, part: Any) -> Any:
        """Averages over 3×3 windows; `"same"` would not count the padding, and pads even sizes differently."""
        margins = [(0, 0), (1, 1), (1, 1)]
        margins.insert(1 if self.data_format == "channels_first" else 3, (0, 0))
        return ops.average_pool(
            ops.pad(part, margins), 3, strides=self.strides, padding="valid", data_format=self.data_format
        )


def total(parts: Sequence[Any]) -> Any:
    """Returns the sum of tensors."""
    result = parts[0]
    for part in parts[1:]:
        result = result + part
    return result


def multiple_of(owner: str, argument: str, value: Any, of: str, divisor: int) -> int:
    """Returns a number of at least 1; raises a `ValueError` unless `divisor`, the argument `of`, divides it."""
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
        >>> [reduced_channels(channels, divisor=8, least=8) for channels in (3, 12, 11.5, 20, 100)]
        [8, 16, 16, 24, 104]
    """
    nearest = max(least, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest
