"""Convolutions along several paths, mixed by attention weights: SKNet and ResNeSt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_residual._arguments import flag, number, owner_of, whole_number
from keras_residual._errors import bad_argument, unknown_name, wrong_type
from keras_residual._types import Shape, Tensor
from keras_residual.layers.composite_conv import CompositeConv2D, layer_or_none, multiple_of, reduced_channels, total
from keras_residual.residual import chain
from keras_residual.residual.configured import Untracked
from keras_residual.residual.norms import NORMS, make_norm
from keras_residual.residual.serialization import register
from keras_residual.residual.symmetric_conv import odd_width


@register
class SelectiveKernel2D(CompositeConv2D):
    """The convolution of SKNet: paths of several kernel sizes, summed with attention weights.

        u_i = relu(norm_i(W_i x_i)),   s = mean(u_1 + … + u_P)
        a_1 … a_P = softmax(V relu(norm(U s)))  over the P paths, in each channel
        y = a_1 * u_1 + … + a_P * u_P

    `x_i` is the input or, with `split_input`, the i-th part of its channels, which keeps the number of weights small.
    The mean is over all positions. `U` and `V` are 1×1 convolutions with `filters * ratio` channels between them,
    rounded to a multiple of `divisor`.

    The sub-layers are `path0_conv`, `path0_norm`, `path1_conv` … and `reduce` (U), `reduce_norm` and `select` (V).

    Args:
        filters: Number of output channels, a multiple of `groups`.
        kernel_sizes: Kernel size of each path: at least two odd numbers, each at least 3.
        strides: Stride, at least 1.
        dilation_rate: Factor on the distance of the taps of each path, at least 1.
        groups: Number of groups of the convolution of each path, at least 1.
        ratio: Ratio of the channels between `reduce` and `select` to `filters`, above 0.
        divisor: The number of these channels is a multiple of this, at least 1.
        split_input: Whether each path gets a part of the input channels instead of all of them.
        keep_3x3: Whether every kernel is 3×3, dilated to the size that was asked for.
        drop_block: A shape-preserving layer between norm and ReLU of each path, or None.
        data_format: `"channels_last"` or `"channels_first"`; None for `keras.config.image_data_format()`.
        **kwargs: `name` and `dtype`, as for every Keras layer.

    Call arguments:
        inputs: Tensor of shape `(batch, height, width, channels)`, or channels first by `data_format`, with a number of
            channels that the number of paths (with `split_input`) times `groups` divides.
        training: Whether the norms use batch statistics and `drop_block` drops.

    Output shape:
        `filters` channels, and each spatial size `n` as `ceil(n / strides)`.

    Raises:
        ValueError: If a number is out of range, or one does not divide another as described.

    Example:
        >>> kr.layers.SelectiveKernel2D(16, strides=2)(np.ones((1, 8, 8, 4))).shape
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
        self.filters = self.output_channels = multiple_of(owner, "filters", filters, "groups", self.groups)
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

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Returns the weighted sum of the paths."""
        paths = len(self.kernel_sizes)
        parts = self.split(inputs, paths) if self.split_input else [inputs] * paths
        maps = []
        for part, conv, norm in zip(parts, self.path_convs, self.path_norms, strict=True):
            dropped = chain.apply(self.drop_block, norm(conv(part), training=training), training, None)
            maps.append(ops.relu(dropped))
        hidden = ops.relu(self.reduce_norm(self.reduce(self.pool(maps)), training=training))
        weights = self.split(self._weights(self.select(hidden)), paths)
        return total([each * weight for each, weight in zip(maps, weights, strict=True)])

    def _weights(self, logits: Tensor) -> Any:
        """Returns the softmax over the paths; the channels lie by path."""
        by_path = ops.reshape(logits, (-1, len(self.kernel_sizes), self.filters))
        shape = self.pooled_shape(self.filters * len(self.kernel_sizes))
        return ops.reshape(ops.softmax(by_path, axis=1), (-1, *shape[1:]))


LEAST_REDUCED = 32


@register
class SplitAttention2D(CompositeConv2D):
    """The convolution of ResNeSt: `radix` convolutions in one, summed with attention weights.

        u_1 … u_R = relu(norm0(W x)),   s = mean(u_1 + … + u_R)
        a_1 … a_R = softmax(V relu(norm1(U s)))  over the R splits, in each channel
        y = a_1 * u_1 + … + a_R * u_R

    With a radix of 1 the softmax is a sigmoid, and this is squeeze-and-excitation. `W` has `groups * radix` groups, `U`
    and `V` are 1×1 convolutions with biases and `groups` groups, with `channels * radix * ratio` channels between them,
    rounded to a multiple of `divisor` and at least 32.

    The sub-layers are `conv` (W), `norm0`, `reduce` (U), `norm1` and `expand` (V).

    Args:
        filters: Number of output channels, a multiple of `groups`.
        kernel_size: Kernel size of `W`, an odd number; each side is padded with
            `dilation_rate * (kernel_size // 2)` zeros.
        strides: Stride of `W`, at least 1.
        dilation_rate: Dilation of `W`, at least 1.
        groups: Number of cardinal groups, which are convolved separately, at least 1.
        radix: Number of splits of each group, at least 1.
        ratio: Ratio of the channels between `reduce` and `expand` to `channels * radix`, above 0.
        divisor: The number of these channels is a multiple of this, at least 1.
        norm: A layer to copy or a name (`"batch_norm"` …); None for a batch norm with an epsilon of 1e-5 and a momentum
            of 0.9.
        drop_block: A shape-preserving layer between `norm0` and the ReLU, or None.
        data_format: `"channels_last"` or `"channels_first"`; None for `keras.config.image_data_format()`.
        **kwargs: `name` and `dtype`, as for every Keras layer.

    Call arguments:
        inputs: Tensor of shape `(batch, height, width, channels)`, or channels first by `data_format`, with a number of
            channels that `groups * radix` divides.
        training: Whether the norms use batch statistics and `drop_block` drops.

    Output shape:
        `filters` channels, and each spatial size `n` as `ceil(n / strides)`.

    Raises:
        ValueError: If a number is out of range, or one does not divide another as described.

    Example:
        >>> kr.layers.SplitAttention2D(16, strides=2, radix=2)(np.ones((1, 8, 8, 4))).shape
        (1, 4, 4, 16)

    Reference:
        Zhang et al., ResNeSt: Split-Attention Networks, 2020. https://arxiv.org/abs/2004.08955, section 3 and figure 2
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        *,
        strides: int = 1,
        dilation_rate: int = 1,
        groups: int = 1,
        radix: int = 2,
        ratio: float = 0.25,
        divisor: int = 8,
        norm: str | keras.Layer | None = None,
        drop_block: keras.Layer | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(strides=strides, dilation_rate=dilation_rate, groups=groups, data_format=data_format, **kwargs)
        owner = owner_of(self)
        self.filters = self.output_channels = multiple_of(owner, "filters", filters, "groups", self.groups)
        self.kernel_size = odd_width(owner, "kernel_size", kernel_size)
        self.radix = whole_number(owner, "radix", radix)
        self.ratio = number(owner, "ratio", ratio, "a number above 0", lambda ratio: ratio > 0)
        self.divisor = whole_number(owner, "divisor", divisor)
        if isinstance(norm, str) and norm not in NORMS:
            raise unknown_name(owner, "norm", norm, NORMS)
        if not (norm is None or isinstance(norm, (str, keras.Layer))):
            raise wrong_type(owner, "norm", f"None, a Keras layer or one of {', '.join(NORMS)}", norm)
        self._given_norm = Untracked(norm)
        self.drop_block = layer_or_none(owner, "drop_block", drop_block)

    def build(self, input_shape: Shape) -> None:
        """Makes the sub-layers."""
        owner = owner_of(self)
        splits = self.groups * self.radix
        channels = self.input_channels(
            input_shape, f"a multiple of groups * radix, {splits}, as channels", lambda n: n % splits == 0
        )
        width = self.filters * self.radix
        reduced = reduced_channels(channels * self.radix * self.ratio, self.divisor, LEAST_REDUCED)
        if reduced % self.groups:
            rule = f"a number by which the {reduced} channels between `reduce` and `expand` become a multiple of "
            raise bad_argument(owner, "divisor", f"{rule}`groups`, which is {self.groups}", self.divisor)

        window = {"strides": self.strides, "dilation_rate": self.dilation_rate, "groups": splits}
        self.conv = self.convolution(width, self.kernel_size, "conv", **window)
        self.norm0 = self._norm("norm0", width)
        self.reduce = self.convolution(reduced, 1, "reduce", groups=self.groups, use_bias=True)
        self.norm1 = self._norm("norm1", reduced)
        self.expand = self.convolution(width, 1, "expand", groups=self.groups, use_bias=True)

        self.conv.build(input_shape)
        maps = self.conv.compute_output_shape(input_shape)
        self.norm0.build(maps)
        if self.drop_block is not None:
            chain.build(owner, "drop_block", [self.drop_block], maps, self.compute_dtype)
        self.reduce.build(self.pooled_shape(self.filters))
        self.norm1.build(self.pooled_shape(reduced))
        self.expand.build(self.pooled_shape(reduced))

    @property
    def norm(self) -> str | keras.Layer | None:
        """The norm as it was given; each place has a copy of its own."""
        return self._given_norm.value

    def _norm(self, name: str, channels: int) -> keras.Layer:
        if self.norm is None:
            return self.batch_norm(name)
        made = make_norm(self.norm, channels=channels, axis=self.channel_axis, name=name, dtype=self.dtype_policy)
        return self._made(name, made)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Returns the weighted sum of the splits."""
        maps = chain.apply(self.norm0, self.conv(inputs), training, None)
        maps = ops.relu(chain.apply(self.drop_block, maps, training, None))
        # The mean of a sum is the sum of the means, which are small.
        means = total(self.split(self.pool([maps]), self.radix))
        hidden = ops.relu(chain.apply(self.norm1, self.reduce(means), training, None))
        weights = self._weights(self.expand(hidden))
        if self.radix == 1:
            return maps * weights
        pairs = zip(self.split(maps, self.radix), self.split(weights, self.radix), strict=True)
        return total([part * weight for part, weight in pairs])

    def _weights(self, logits: Tensor) -> Any:
        """Returns the weights in the channel order of the maps: by split, then by group."""
        if self.radix == 1:
            return ops.sigmoid(logits)
        # The logits come by group, then by split: each group has its own part of `expand`.
        by_group = ops.reshape(logits, (-1, self.groups, self.radix, self.filters // self.groups))
        by_split = ops.transpose(ops.softmax(by_group, axis=2), (0, 2, 1, 3))
        shape = self.pooled_shape(self.filters * self.radix)
        return ops.reshape(by_split, (-1, *shape[1:]))
