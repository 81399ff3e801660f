"""Selective kernels: convolutions of several widths, mixed by weights that each picture sets itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_residual._arguments import flag, number, owner_of, whole_number
from keras_residual._errors import bad_argument
from keras_residual.layers.composite_conv import CompositeConv2D, layer_or_none, multiple, reduced_channels, total
from keras_residual.residual import chain
from keras_residual.residual.serialization import register
from keras_residual.residual.shapes import Shape
from keras_residual.residual.symmetric_conv import odd_width


@register
class SelectiveKernel2D(CompositeConv2D):
    """The convolution of SKNet: paths with windows of several widths, summed with weights from the mean over positions.

        u_i = relu(norm_i(W_i x_i)),   s = mean(u_1 + … + u_P)
        a_1 … a_P = softmax(V relu(norm(U s)))  over the P paths, in each channel
        y = a_1 * u_1 + … + a_P * u_P

    `x_i` is the input or, with `split_input`, the i-th part of its channels, which keeps the number of weights small.
    `U` and `V` are 1×1 convolutions; between them are `filters * ratio` channels, brought to a multiple of `divisor`.

    The sub-layers are `path0_conv`, `path0_norm`, `path1_conv` … and `reduce` (U), `reduce_norm` and `select` (V).

    Args:
        filters: Number of output channels, a multiple of `groups`.
        kernel_sizes: Width of the window of each path, at least two odd numbers of at least 3.
        strides: Stride, at least 1.
        dilation_rate: Factor on the distance of the taps of each path, at least 1.
        groups: Number of groups of the convolution of each path, at least 1.
        ratio: Channels between `reduce` and `select` as a share of `filters`, above 0.
        divisor: What divides the number of these channels, and the least of them, at least 1.
        split_input: Whether each path gets a part of the input channels, and not all of them.
        keep_3x3: Whether each window has 3×3 taps, further apart for the width that was asked for.
        drop_block: A layer that keeps shapes, between norm and ReLU of each path; None for none.
        data_format: `"channels_last"` or `"channels_first"`; None for `keras.config.image_data_format()`.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.

    Call arguments:
        inputs: Tensor of shape `(batch, height, width, channels)`, or channels first by `data_format`, with a number of
            channels that the number of paths (with `split_input`) times `groups` divides.
        training: Whether the norms take the statistics of the batch, and `drop_block` drops.

    Output shape:
        `filters` channels, and each spatial size `n` as `ceil(n / strides)`.

    Raises:
        ValueError: If a number is out of its range, or does not divide what it must.

    Example:
        >>> import numpy as np
        >>> from keras_residual.layers.selective_kernel import SelectiveKernel2D
        >>> SelectiveKernel2D(16, strides=2)(np.ones((1, 8, 8, 4))).shape
        (1, 4, 4, 16)

    Reference:
        Li et al., Selective Kernel Networks, 2019. https://arxiv.org/abs/1903.06586, section 3.1. The paper does not
        split the input.
    """

    def __init__(
        self,
        filters: int,
        *,
        kernel_sizes: Sequence[int] = (3, 5),
        strides: int = 1,
        dilation_rate: int = 1,
        groups: int = 1,
        ratio: float = 1 / 16,
        divisor: int = 8,
        split_input: bool = True,
        keep_3x3: bool = True,
        drop_block: keras.Layer | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(strides=strides, dilation_rate=dilation_rate, groups=groups, data_format=data_format, **kwargs)
        owner = owner_of(self)
        self.filters = self.output_channels = multiple(owner, "filters", filters, "groups", self.groups)
        if not isinstance(kernel_sizes, (tuple, list)) or len(kernel_sizes) < 2:
            raise bad_argument(owner, "kernel_sizes", "two widths or more", kernel_sizes)
        self.kernel_sizes = tuple(odd_width(owner, "kernel_sizes", width, 3) for width in kernel_sizes)
        self.ratio = number(owner, "ratio", ratio, "a number above 0", lambda ratio: ratio > 0)
        self.divisor = whole_number(owner, "divisor", divisor)
        self.split_input = flag(owner, "split_input", split_input)
        self.keep_3x3 = flag(owner, "keep_3x3", keep_3x3)
        self.drop_block = layer_or_none(owner, "drop_block", drop_block)

    def build(self, input_shape: Shape) -> None:
        """Makes the sub-layers."""
        paths = len(self.kernel_sizes)
        divisor = self.groups * (paths if self.split_input else 1)
        rule = f"a multiple of {'groups * paths' if self.split_input else 'groups'}, {divisor}, as channels"
        channels = self.input_channels(input_shape, rule, lambda n: n % divisor == 0)
        shape = list(input_shape)
        if self.split_input:
            shape[self.channel_axis] = channels // paths
        maps = self.compute_output_shape(input_shape)

        self.path_convs: list[keras.Layer] = []
        self.path_norms: list[keras.Layer] = []
        for path, width in enumerate(self.kernel_sizes):
            taps, spread = (3, width // 2) if self.keep_3x3 else (width, 1)
            window = {"strides": self.strides, "dilation_rate": spread * self.dilation_rate, "groups": self.groups}
            self.path_convs.append(self.convolution(self.filters, taps, f"path{path}_conv", **window))
            self.path_norms.append(self.batch_norm(f"path{path}_norm"))
            self.path_convs[-1].build(tuple(shape))
            self.path_norms[-1].build(maps)
        if self.drop_block is not None:
            chain.build(owner_of(self), "drop_block", [self.drop_block], maps, self.compute_dtype)

        reduced = reduced_channels(self.filters * self.ratio, self.divisor, self.divisor)
        self.reduce = self.convolution(reduced, 1, "reduce")
        self.reduce_norm = self.batch_norm("reduce_norm")
        self.select = self.convolution(self.filters * paths, 1, "select")
        self.reduce.build(self.pooled_shape(self.filters))
        self.reduce_norm.build(self.pooled_shape(reduced))
        self.select.build(self.pooled_shape(reduced))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Convolves in each path, and mixes the paths."""
        paths = len(self.kernel_sizes)
        parts = self.split(inputs, paths) if self.split_input else [inputs] * paths
        maps = []
        for part, conv, norm in zip(parts, self.path_convs, self.path_norms, strict=True):
            dropped = chain.apply(self.drop_block, norm(conv(part), training=training), training, None)
            maps.append(ops.relu(dropped))
        hidden = ops.relu(self.reduce_norm(self.reduce(self.pooled(maps)), training=training))
        weights = self.split(self._weights(self.select(hidden)), paths)
        return total([each * weight for each, weight in zip(maps, weights, strict=True)])

    def _weights(self, logits: Any) -> Any:
        """Returns the softmax over the paths; the channels lie by path."""
        by_path = ops.reshape(logits, (-1, len(self.kernel_sizes), self.filters))
        shape = self.pooled_shape(self.filters * len(self.kernel_sizes))
        return ops.reshape(ops.softmax(by_path, axis=1), (-1, *shape[1:]))
