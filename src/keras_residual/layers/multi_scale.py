"""Multi-scale convolution: parts of the channels go through one, two, three … convolutions in a row."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_residual._arguments import flag, owner_of, whole_number
from keras_residual._errors import bad_argument
from keras_residual.layers.composite_conv import CompositeConv2D, multiple
from keras_residual.residual.serialization import register
from keras_residual.residual.shapes import Shape


@register
class MultiScaleConv2D(CompositeConv2D):
    """The convolution of Res2Net: of `scale` parts of the channels, each adds to the next what it has become.

        y_1 = K_1(x_1),   y_i = K_i(x_i + y_(i-1)),   y_scale = x_scale,   K_i = relu(norm(3×3 convolution))

    Each part sees further than the one before it. In the first block of a stage the shapes change: there the parts stay
    apart, `y_i = K_i(x_i)`, and the last part is averaged over 3×3 windows of the same stride, of which the padding's
    zeros count as values.

    The sub-layers are `conv0`, `norm0`, `conv1` … one of each for every part but the last.

    Args:
        filters_per_scale: Number of channels of a part, a multiple of `groups`.
        scale: Number of parts, at least 2.
        strides: Stride, at least 1; more than 1 needs `first`.
        dilation_rate: Distance of the taps of the convolutions, at least 1.
        groups: Number of groups of each convolution, at least 1.
        first: Whether this is the first block of a stage.
        data_format: `"channels_last"` or `"channels_first"`; None for `keras.config.image_data_format()`.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.

    Call arguments:
        inputs: Tensor of shape `(batch, height, width, scale * filters_per_scale)`, or channels first by `data_format`.
        training: Whether the norms take the statistics of the batch.

    Output shape:
        As many channels as the input has, and each spatial size `n` as `ceil(n / strides)`.

    Raises:
        ValueError: If a number is out of its range, or the input has another number of channels.

    Example:
        >>> import numpy as np
        >>> from keras_residual.layers.multi_scale import MultiScaleConv2D
        >>> MultiScaleConv2D(4, scale=3, strides=2, first=True)(np.ones((1, 8, 8, 12))).shape
        (1, 4, 4, 12)

    Reference:
        Gao et al., Res2Net: A New Multi-scale Backbone Architecture, 2019. https://arxiv.org/abs/1904.01169, eq. 1.
        There the first part is handed on and the last convolved; in the authors' code and here it is the other way.
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
        self.filters_per_scale = multiple(owner, "filters_per_scale", filters_per_scale, "groups", self.groups)
        self.scale = whole_number(owner, "scale", scale, 2)
        self.first = flag(owner, "first", first)
        if self.strides > 1 and not self.first:
            raise bad_argument(owner, "strides", "1 where the parts are added up", strides, "Pass first=True.")
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

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Convolves part after part."""
        *parts, last = self.split(inputs, self.scale)
        outputs: list[Any] = []
        for part, conv, norm in zip(parts, self.convs, self.norms, strict=True):
            given = part if self.first or not outputs else part + outputs[-1]
            outputs.append(ops.relu(norm(conv(given), training=training)))
        return ops.concatenate([*outputs, self._pool(last) if self.first else last], axis=self.channel_axis)

    def _pool(self, part: Any) -> Any:
        """Averages over 3×3 windows; "same" would leave the padding out, and lay it elsewhere for even sizes."""
        margins = [(0, 0), (1, 1), (1, 1)]
        margins.insert(1 if self.data_format == "channels_first" else 3, (0, 0))
        return ops.average_pool(
            ops.pad(part, margins), 3, strides=self.strides, padding="valid", data_format=self.data_format
        )
