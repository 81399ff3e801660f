"""The residual blocks of the published ResNets: as functions of plain arguments, and as a configuration has them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras

from keras_residual._arguments import whole_number
from keras_residual._errors import bad_argument
from keras_residual.layers.blur_pool import BlurPool2D
from keras_residual.layers.drop_block import DropBlock2D
from keras_residual.layers.efficient_channel_attention import EfficientChannelAttention, adaptive_kernel_size
from keras_residual.layers.multi_scale import MultiScaleConv2D
from keras_residual.layers.selective_kernel import SelectiveKernel2D
from keras_residual.layers.split_attention import SplitAttention2D
from keras_residual.layers.squeeze_excite import SqueezeExcite
from keras_residual.models.config import ResNetConfig, ResNetV2Config
from keras_residual.models.parts import Parts, batch_norm
from keras_residual.residual.residual import Residual
from keras_residual.residual.shortcuts import AvgPoolShortcut, ProjectionShortcut, ZeroPadShortcut


def basic_block(
    filters: int,
    strides: int = 1,
    *,
    shortcut: str | keras.Layer | None = None,
    zero_init_last: bool = True,
    drop_path_rate: float = 0.0,
    rank: int = 2,
    name: str | None = None,
) -> Residual:
    """Returns ResNet v1's basic block: `y = relu(S(x) + BN(W2 relu(BN(W1 x))))`, with 3-wide convolutions.

    Args:
        filters: Number of output channels, at least 1.
        strides: Stride of the first convolution, at least 1.
        shortcut: As in `Residual`; None is the identity where shapes agree, else a projection with batch norm.
        zero_init_last: Whether the last norm's scale starts at zero, which makes the branch zero at the start
            (Goyal et al. 2017, https://arxiv.org/abs/1706.02677).
        drop_path_rate: Probability in `[0, 1)` of dropping the branch of a sample in training.
        rank: Number of spatial dimensions: 1, 2 or 3.
        name: Name of the block.

    Example:
        >>> basic_block(16, strides=2)(np.zeros((1, 8, 8, 8))).shape
        (1, 4, 4, 16)

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2015. https://arxiv.org/abs/1512.03385, figure 5 left
    """
    parts, filters = _checked("basic_block", filters, rank)
    config = ResNetConfig(block="basic", depths=(1,), widths=(filters,), rank=rank, zero_init_last=zero_init_last)
    place = BlockPlace(strides=strides, drop_path_rate=drop_path_rate)
    return BlockMaker(config, parts)(place, name, shortcut=shortcut)


def bottleneck_block(
    filters: int,
    strides: int = 1,
    *,
    expansion: int = 4,
    shortcut: str | keras.Layer | None = None,
    zero_init_last: bool = True,
    drop_path_rate: float = 0.0,
    rank: int = 2,
    name: str | None = None,
) -> Residual:
    """Returns ResNet v1's bottleneck block: 1, 3 and 1 wide convolutions, the last with `expansion * filters`.

    The stride is that of the 3-wide convolution ("v1.5", as torchvision and timm have it).

    Args:
        filters: Number of channels inside; the output has `expansion * filters`.
        strides: Stride of the block, at least 1.
        expansion: Factor between inner and outer channels, at least 1.
        shortcut: As in `Residual`; None is the identity where shapes agree, else a projection with batch norm.
        zero_init_last: Whether the last norm's scale starts at zero.
        drop_path_rate: Probability in `[0, 1)` of dropping the branch of a sample in training.
        rank: Number of spatial dimensions: 1, 2 or 3.
        name: Name of the block.

    Example:
        >>> bottleneck_block(4, strides=2)(np.zeros((1, 8, 8, 8))).shape
        (1, 4, 4, 16)

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2015. https://arxiv.org/abs/1512.03385, figure 5 right
    """
    parts, filters = _checked("bottleneck_block", filters, rank)
    widths = (((filters, filters, expansion * filters),),)
    config = ResNetConfig(depths=(1,), widths=(filters,), inner_widths=widths, rank=rank, zero_init_last=zero_init_last)
    place = BlockPlace(strides=strides, drop_path_rate=drop_path_rate)
    return BlockMaker(config, parts)(place, name, shortcut=shortcut)


def preact_basic_block(
    filters: int,
    strides: int = 1,
    *,
    project: bool = False,
    drop_path_rate: float = 0.0,
    rank: int = 2,
    name: str | None = None,
) -> Residual:
    """Returns ResNet v2's basic block: `y = x + W2 relu(BN(W1 relu(BN(x))))`, with nothing after the sum.

    Args:
        filters: Number of output channels, at least 1.
        strides: Stride of the first convolution, at least 1; more than 1 needs `project`.
        project: Whether the shape changes: then branch and a projection both start from `relu(BN(x))`, as in the paper.
        drop_path_rate: Probability in `[0, 1)` of dropping the branch of a sample in training.
        rank: Number of spatial dimensions: 1, 2 or 3.
        name: Name of the block.

    Example:
        >>> preact_basic_block(16, strides=2, project=True)(np.zeros((1, 8, 8, 8))).shape
        (1, 4, 4, 16)

    Reference:
        He et al., Identity Mappings in Deep Residual Networks, 2016. https://arxiv.org/abs/1603.05027, figure 1b
    """
    parts, filters = _checked("preact_basic_block", filters, rank)
    config = ResNetV2Config(block="basic", depths=(1,), filters=(filters,))
    return _alone("preact_basic_block", config, parts, strides, project, drop_path_rate, name)


def preact_bottleneck_block(
    filters: int,
    strides: int = 1,
    *,
    expansion: int = 4,
    project: bool = False,
    drop_path_rate: float = 0.0,
    rank: int = 2,
    name: str | None = None,
) -> Residual:
    """Returns ResNet v2's bottleneck block: norm and activation before each of its 1, 3 and 1 wide convolutions.

    Args:
        filters: Number of channels inside; the output has `expansion * filters`.
        strides: Stride of the 3-wide convolution, at least 1; more than 1 needs `project`.
        expansion: Factor between inner and outer channels, at least 1.
        project: Whether the shape changes: then branch and a projection both start from `relu(BN(x))`, as in the paper.
        drop_path_rate: Probability in `[0, 1)` of dropping the branch of a sample in training.
        rank: Number of spatial dimensions: 1, 2 or 3.
        name: Name of the block.

    Example:
        >>> preact_bottleneck_block(4, project=True)(np.zeros((1, 8, 8, 8))).shape
        (1, 8, 8, 16)

    Reference:
        He et al., Identity Mappings in Deep Residual Networks, 2016. https://arxiv.org/abs/1603.05027, appendix
    """
    parts, filters = _checked("preact_bottleneck_block", filters, rank)
    config = ResNetV2Config(depths=(1,), filters=(expansion * filters,), expansion=expansion)
    return _alone("preact_bottleneck_block", config, parts, strides, project, drop_path_rate, name)


def series_block(
    filters: int, kernel_sizes: tuple[int, ...] = (8, 5, 3), *, drop_path_rate: float = 0.0, name: str | None = None
) -> Residual:
    """Returns the time-series ResNet's block: three 1-D convolutions of widths 8, 5 and 3 with batch norm.

    Where input and output have equal channels the shortcut is the identity, else a projection with batch norm.

    Args:
        filters: Number of output channels, at least 1.
        kernel_sizes: Width of each convolution in time steps; the time axis keeps its length.
        drop_path_rate: Probability in `[0, 1)` of dropping the branch of a sample in training.
        name: Name of the block.

    Input shape:
        `(batch, time, channels)`.

    Example:
        >>> series_block(64)(np.zeros((1, 20, 3))).shape
        (1, 20, 64)

    Reference:
        Wang et al., Time Series Classification from Scratch with Deep Neural Networks, 2016.
        https://arxiv.org/abs/1611.06455, section 2.3
    """
    branch: list[keras.Layer] = []
    for index, width in enumerate(kernel_sizes, start=1):
        branch += [
            keras.layers.Conv1D(
                filters, width, padding="same", use_bias=False, kernel_initializer="he_normal", name=f"conv{index}"
            ),
            batch_norm(f"norm{index}"),
        ]
        if index < len(kernel_sizes):
            branch.append(keras.layers.ReLU(name=f"relu{index}"))
    shortcut = ProjectionShortcut(norm=batch_norm("norm"), always=False, name="shortcut")
    return Residual(branch, shortcut=shortcut, drop_path_rate=drop_path_rate, activation="relu", name=name)


def tabular_block(
    units: int,
    hidden_units: int,
    *,
    hidden_dropout: float = 0.0,
    residual_dropout: float = 0.0,
    drop_path_rate: float = 0.0,
    name: str | None = None,
) -> Residual:
    """Returns the tabular ResNet's block: `y = x + Dropout(W2 Dropout(relu(W1 BN(x))))`.

    Args:
        units: Width of the stream, at least 1.
        hidden_units: Width inside the branch, at least 1.
        hidden_dropout: Rate in `[0, 1)` of the dropout after the activation.
        residual_dropout: Rate in `[0, 1)` of the dropout at the branch's end.
        drop_path_rate: Probability in `[0, 1)` of dropping the branch of a sample in training.
        name: Name of the block.

    Input shape:
        `(batch, units)`.

    Example:
        >>> tabular_block(32, 64)(np.zeros((1, 32))).shape
        (1, 32)

    Reference:
        Gorishniy et al., Revisiting Deep Learning Models for Tabular Data, 2021. https://arxiv.org/abs/2106.11959, 3.2
    """
    branch: list[keras.Layer] = [
        keras.layers.Dense(hidden_units, activation="relu", kernel_initializer="he_normal", name="dense1")
    ]
    if hidden_dropout:
        branch.append(keras.layers.Dropout(hidden_dropout, name="dropout1"))
    branch.append(keras.layers.Dense(units, kernel_initializer="he_normal", name="dense2"))
    if residual_dropout:
        branch.append(keras.layers.Dropout(residual_dropout, name="dropout2"))
    return Residual(
        branch,
        shortcut="identity",
        norm=batch_norm("norm"),
        drop_path_rate=drop_path_rate,
        name=name,
    )


def _checked(owner: str, filters: int, rank: int) -> tuple[Parts, int]:
    return Parts(rank=rank), whole_number(owner, "filters", filters)


def _alone(
    owner: str,
    config: ResNetV2Config,
    parts: Parts,
    strides: int,
    project: bool,
    drop_path_rate: float,
    name: str | None,
) -> Residual:
    if strides > 1 and not project:
        raise bad_argument(owner, "project", "True where `strides` is more than 1", project)
    # Only the first block of a stage projects.
    place = BlockPlace(block=0 if project else 1, strides=strides, drop_path_rate=drop_path_rate)
    return BlockMaker(config, parts)(place, name)


# --- The blocks of a network, by its configuration --------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockPlace:
    """The position of a block in a network, and what depends on it.

    Args:
        stage: Its stage, from 0.
        block: Its index in the stage, from 0.
        strides: Its stride.
        dilation: Dilation of the stage's convolutions.
        first_dilation: Dilation of the block's first spatial convolution.
        drop_path_rate: Its rate of stochastic depth.
    """

    stage: int = 0
    block: int = 0
    strides: int = 1
    dilation: int = 1
    first_dilation: int = 1
    drop_path_rate: float = 0.0


class BlockMaker:
    """Makes the blocks of one network.

    Args:
        config: The architecture.
        parts: Makes its layers.
        drop_block_rate: Rate of DropBlock in the last two stages.
    """

    def __init__(self, config: Any, parts: Parts, drop_block_rate: float = 0.0) -> None:
        self.config = config
        self.parts = parts
        self.drop_block_rate = drop_block_rate

    def __call__(self, place: BlockPlace, name: str | None, *, shortcut: str | keras.Layer | None = None) -> Residual:
        """Returns the block at a place; `shortcut` replaces the one that the configuration asks for."""
        if self.config.preactivation:
            return self._preactivation_block(place, name)
        kind = self.config.blocks[place.stage]
        branch = self._basic(place, kind) if kind.endswith("basic") else self._bottleneck(place, kind)
        shortcut = self._shortcut(place) if shortcut is None else shortcut
        rate = place.drop_path_rate
        return Residual(branch, shortcut=shortcut, drop_path_rate=rate, activation="relu", name=name)

    def _preactivation_block(self, place: BlockPlace, name: str | None) -> Residual:
        before, rate = self.parts.norm_and_activation(1), place.drop_path_rate
        branch = self._basic_v2(place) if self.config.block == "basic" else self._bottleneck_v2(place)
        shortcut = self._shortcut(place)
        if shortcut == "identity":
            return Residual([*before, *branch], shortcut=shortcut, drop_path_rate=rate, name=name)
        return Residual(branch, preactivation=before, shortcut=shortcut, drop_path_rate=rate, name=name)

    # --- Branches of ResNet v2 ---------------------------------------------------------------------------------------

    def _basic_v2(self, place: BlockPlace) -> list[keras.Layer]:
        config, parts = self.config, self.parts
        filters = config.filters[place.stage]
        dropout = [keras.layers.Dropout(config.dropout_rate, name="dropout")] if config.dropout_rate else []
        return [
            *parts.conv(filters, 3, strides=place.strides, dilation=place.first_dilation, name="conv1"),
            *parts.norm_and_activation(2),
            *dropout,
            *parts.conv(filters, 3, dilation=place.dilation, zero_init=config.zero_init_last, name="conv2"),
        ]

    def _bottleneck_v2(self, place: BlockPlace) -> list[keras.Layer]:
        config, parts = self.config, self.parts
        filters = config.filters[place.stage]
        inner = filters // config.expansion
        return [
            *parts.conv(inner, 1, name="conv1"),
            *parts.norm_and_activation(2),
            *parts.conv(inner, 3, strides=place.strides, dilation=place.first_dilation, name="conv2"),
            *parts.norm_and_activation(3),
            *parts.conv(filters, 1, zero_init=config.zero_init_last, name="conv3"),
        ]

    # --- Branches of ResNet v1 ---------------------------------------------------------------------------------------

    def _basic(self, place: BlockPlace, kind: str) -> list[keras.Layer]:
        config, parts = self.config, self.parts
        width = config.widths[place.stage]
        inner = width // config.reduce_first
        if kind == "sk_basic":
            first = [self._selective_kernel(place, inner, name="conv1")]
        else:
            first = [
                *self._spatial(place, inner, name="conv1"),
                parts.norm_layer("norm1"),
                *self._drop_block(place),
                parts.activation_layer("relu1"),
                *self._anti_aliasing(place),
            ]
        return [
            *first,
            *parts.conv(width, 3, dilation=place.dilation, name="conv2"),
            parts.norm_layer("norm2", zero_init=config.zero_init_last),
            *self._attention(place),
        ]

    def _bottleneck(self, place: BlockPlace, kind: str) -> list[keras.Layer]:
        config, parts = self.config, self.parts
        first, inner, outer = self._widths(place)
        first *= config.scale if kind == "res2net" else 1
        strides = place.strides if config.strides_first else 1
        return [
            *parts.conv(first, 1, strides=strides, name="conv1"),
            parts.norm_layer("norm1"),
            parts.activation_layer("relu1"),
            *self._middle(place, kind, inner),
            *parts.conv(outer, 1, name="conv3"),
            parts.norm_layer("norm3", zero_init=config.zero_init_last),
            *self._attention(place),
        ]

    def _middle(self, place: BlockPlace, kind: str, width: int) -> list[keras.Layer]:
        """Returns what a bottleneck has between its 1 wide convolutions."""
        config, parts = self.config, self.parts
        if kind == "sk_bottleneck":
            return [self._selective_kernel(place, width, name="conv2")]
        if kind == "res2net":
            layer = MultiScaleConv2D(
                width,
                scale=config.scale,
                strides=place.strides,
                dilation_rate=place.first_dilation,
                groups=config.cardinality,
                first=place.block == 0,
                name="conv2",
            )
            return [layer, *self._drop_block(place)]
        if kind == "resnest":
            pool = parts.average_pool(3, place.strides, pad=1, name="avd") if place.strides > 1 else []
            layer = SplitAttention2D(
                width,
                3,
                dilation_rate=place.first_dilation,
                groups=config.cardinality,
                radix=config.radix,
                drop_block=next(iter(self._drop_block(place)), None),
                name="conv2",
            )
            return [*pool, layer] if config.pool_first else [layer, *pool]
        return [
            *self._spatial(place, width, groups=config.cardinality, name="conv2"),
            parts.norm_layer("norm2"),
            *self._drop_block(place),
            parts.activation_layer("relu2"),
            *self._anti_aliasing(place),
        ]

    def _widths(self, place: BlockPlace) -> tuple[int, int, int]:
        """Returns the filters of a bottleneck's three convolutions."""
        config = self.config
        if config.inner_widths is not None:
            return config.inner_widths[place.stage][place.block]
        width = config.widths[place.stage]
        inner = math.floor(width * config.base_width / 64) * config.cardinality
        return inner // config.reduce_first, inner, 4 * width

    def _spatial(self, place: BlockPlace, filters: int, *, groups: int = 1, name: str) -> list[keras.Layer]:
        """Returns the convolution that has the block's stride, unless something else has it."""
        elsewhere = self._aliases(place) or (self.config.strides_first and name == "conv2")
        strides = 1 if elsewhere else place.strides
        return self.parts.conv(filters, 3, strides=strides, dilation=place.first_dilation, groups=groups, name=name)

    def _selective_kernel(self, place: BlockPlace, filters: int, *, name: str) -> keras.Layer:
        config = self.config
        return SelectiveKernel2D(
            filters,
            strides=place.strides,
            dilation_rate=place.first_dilation,
            groups=config.cardinality,
            ratio=config.sk_ratio,
            divisor=config.sk_divisor,
            split_input=config.sk_split,
            drop_block=next(iter(self._drop_block(place)), None),
            name=name,
        )

    def _aliases(self, place: BlockPlace) -> bool:
        return self.config.anti_aliasing is not None and (place.strides > 1 or place.first_dilation != place.dilation)

    def _anti_aliasing(self, place: BlockPlace) -> list[keras.Layer]:
        if not self._aliases(place):
            return []
        if self.config.anti_aliasing == "blur":
            return [BlurPool2D(place.strides, name="blur")]
        return self.parts.average_pool(2, 2, name="average") if place.strides > 1 else []

    def _drop_block(self, place: BlockPlace) -> list[keras.Layer]:
        """Returns DropBlock in the last two stages, with larger blocks in the larger map."""
        later = len(self.config.depths) - 1 - place.stage
        if not self.drop_block_rate or later > 1:
            return []
        size, gamma = (3, 1.0) if later == 0 else (5, 0.25)
        return [DropBlock2D(self.drop_block_rate, size, gamma_scale=gamma, name="drop_block")]

    def _attention(self, place: BlockPlace) -> list[keras.Layer]:
        config = self.config
        if config.attention is None:
            return []
        before = [self.parts.activation_layer("relu2")] if config.relu_before_attention else []
        if config.attention == "se":
            return [*before, SqueezeExcite(config.se_ratio, divisor=config.se_divisor, name="se")]
        # In a pruned net the window is still that of the full width.
        kind = config.blocks[place.stage]
        nominal = config.widths[place.stage] * (1 if kind.endswith("basic") else 4)
        return [*before, EfficientChannelAttention(adaptive_kernel_size(nominal), name="se")]

    # --- Shortcuts ---------------------------------------------------------------------------------------------------

    def _shortcut(self, place: BlockPlace) -> keras.Layer | str:
        config, parts = self.config, self.parts
        if place.block > 0 or not self._projects(place):
            return "identity"
        if config.shortcut == "zero_pad":
            # The CIFAR checkpoints in use pad on both sides of the channels.
            return ZeroPadShortcut(pad="both", always=False, name="shortcut")
        averages = config.shortcut == "avg_pool"
        reduces = place.strides > 1 or place.dilation > 1
        width = config.shortcut_kernel_size if reduces and not averages else 1
        if width > 1 or parts.convolution == "standardized" or (averages and place.dilation > 1):
            pool = self._average(place) if averages and reduces else []
            projection = parts.conv(
                config.stage_filters[place.stage],
                width,
                strides=1 if pool else place.strides,
                dilation=place.first_dilation if width > 1 else 1,
                name="projection",
            )
            norm = [] if config.preactivation else [parts.norm_layer("norm")]
            return keras.Sequential([*pool, *projection, *norm], name="shortcut")
        kind = AvgPoolShortcut if averages else ProjectionShortcut
        if config.preactivation:
            return kind(use_bias=False, name="shortcut")
        return kind(norm=parts.norm_layer("norm"), always=False, name="shortcut")

    def _projects(self, place: BlockPlace) -> bool:
        """Whether the first block of a stage has a shortcut of its own; one of v1 finds out when it is built."""
        config = self.config
        if not config.preactivation or config.project == "each":
            return True
        before = config.filters[place.stage - 1] if place.stage else config.stem_filters
        changes_channels = before != config.filters[place.stage]
        return changes_channels or place.strides > 1 or place.first_dilation != place.dilation

    def _average(self, place: BlockPlace) -> list[keras.Layer]:
        if place.strides > 1:
            return [keras.layers.AveragePooling2D(2, padding="same", name="pool")]
        # Where dilation stands for the stride, the average is over as many positions, one apart.
        return [self.parts.zero_pad(0, 1, "pad"), *self.parts.average_pool(2, 1, name="pool")]
