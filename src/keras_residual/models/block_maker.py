"""The blocks of ResNet v1 and v2 by their configuration: the layers of branch and shortcut."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras

from keras_residual.layers.channel_attention import EfficientChannelAttention, SqueezeExcite, adaptive_kernel_size
from keras_residual.layers.composite_conv import MultiScaleConv2D
from keras_residual.layers.drop_block import DropBlock2D
from keras_residual.layers.pooling import BlurPool2D
from keras_residual.layers.split_attention import SelectiveKernel2D, SplitAttention2D
from keras_residual.models.parts import Parts
from keras_residual.residual.residual import Residual
from keras_residual.residual.shortcuts import AvgPoolShortcut, ProjectionShortcut, ZeroPadShortcut


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
