"""ResNets v2, with pre-activation, of every published kind: a configuration, and the function that builds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from keras_residual._errors import bad_argument, unknown_name
from keras_residual.models.parts import CONVOLUTIONS, NORMS, Parts
from keras_residual.models.stages import BlockPlace, Choices, apply_stage, finish, places
from keras_residual.residual.residual import Residual
from keras_residual.residual.shortcuts import AvgPoolShortcut, ProjectionShortcut

BLOCKS = ("basic", "bottleneck")
STEMS = ("conv7", "deep", "deep_tiered", "conv3")
POOLS = ("max", "max_zero", "none")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResNetV2Config:
    """Architecture of a ResNet v2: norm and activation stand before each convolution, and nothing after the sum.

    Args:
        block: `"basic"` or `"bottleneck"`.
        depths: Number of blocks in each stage; each stage after the first halves the map.
        filters: Channels after each stage; a bottleneck has a quarter inside.
        stem: `"conv7"`, `"deep"` or `"deep_tiered"`, with stride 2, or `"conv3"` without; see `ResNetConfig`.
        stem_filters: Filters after the stem.
        stem_pool: `"max"`, `"max_zero"` (the edge is padded with zeros, which win against negative values, as Big
            Transfer has it), or `"none"`.
        shortcut: What is done where shapes change: `"projection"` or `"avg_pool"`.
        project: Where that is done: at `"each"` stage's start, or `"where_needed"`, at starts that change the shape.
        norm: `"batch_norm"`, `"group_norm"`, `"evonorm_s0"` or `"filter_response_norm"`.
        convolution: `"plain"` or `"standardized"`.
        dropout_rate: Rate in `[0, 1)` of the dropout between a basic block's convolutions (Wide ResNets).
        zero_init_last: Whether the last convolution of each block starts at zero.

    Raises:
        ValueError: For a value that breaks its rule, so that a config that exists can be built.

    Example:
        >>> ResNetV2Config(depths=(3, 4, 6, 3)).filters
        (256, 512, 1024, 2048)

    Reference:
        He et al., Identity Mappings in Deep Residual Networks, 2016. https://arxiv.org/abs/1603.05027
        Kolesnikov et al., Big Transfer, 2019. https://arxiv.org/abs/1912.11370
    """

    block: str = "bottleneck"
    depths: tuple[int, ...]
    filters: tuple[int, ...] = (256, 512, 1024, 2048)
    stem: str = "conv7"
    stem_filters: int = 64
    stem_pool: str = "max"
    shortcut: str = "projection"
    project: str = "each"
    norm: str = "batch_norm"
    convolution: str = "plain"
    dropout_rate: float = 0.0
    zero_init_last: bool = False

    def __post_init__(self) -> None:
        """Checks every rule."""
        owner = "ResNetV2Config"
        known = {
            "block": BLOCKS,
            "stem": STEMS,
            "stem_pool": POOLS,
            "shortcut": ("projection", "avg_pool"),
            "project": ("each", "where_needed"),
            "norm": NORMS,
            "convolution": CONVOLUTIONS,
        }
        for argument, values in known.items():
            if getattr(self, argument) not in values:
                raise unknown_name(owner, argument, getattr(self, argument), values)
        if not self.depths or min(self.depths) < 1:
            raise bad_argument(owner, "depths", "at least one stage of at least one block", self.depths)
        if len(self.filters) != len(self.depths) or min(self.filters) < 1:
            rule = f"one positive number a stage, {len(self.depths)} in all"
            raise bad_argument(owner, "filters", rule, self.filters)
        if not 0 <= self.dropout_rate < 1:
            raise bad_argument(owner, "dropout_rate", "a rate in [0, 1)", self.dropout_rate)

    @property
    def stem_stride(self) -> int:
        """Stride of the map that the first stage gets."""
        return (1 if self.stem == "conv3" else 2) * (1 if self.stem_pool == "none" else 2)


def build_resnet_v2(config: ResNetV2Config, choices: Choices) -> keras.Model:
    """Returns the model from standardised pictures to what was chosen.

    Args:
        config: The architecture.
        choices: What the user chose beside it.

    Raises:
        ValueError: For a choice that breaks its rule, see `Choices`.
    """
    choices.check(rank=2)
    if choices.drop_block_rate:
        rule = "0: DropBlock is not defined for pre-activation blocks"
        raise bad_argument(choices.owner, "drop_block_rate", rule, choices.drop_block_rate, "Use drop_path_rate.")
    parts = Parts(norm=config.norm, convolution=config.convolution)
    inputs = keras.Input(choices.input_shape, name="pictures")
    x = _stem(config, parts, inputs)
    features = {"stem": x}
    for layer in _stem_pool(config, parts):
        x = layer(x)
    make = _BlockMaker(config, parts)
    stages = places(
        config.depths,
        stem_stride=config.stem_stride,
        output_stride=choices.output_stride,
        drop_path_rate=choices.drop_path_rate,
    )
    for index, blocks in enumerate(stages, start=1):
        make.channels = x.shape[parts.channel_axis]
        x = apply_stage(x, blocks, make, alike=True, execution=choices.execution, remat=choices.remat)
        features[f"stage{index}"] = x
    if not choices.features_only:
        for layer in parts.norm_and_activation("", prefix="head_"):
            x = layer(x)
    return finish(inputs, x, features, choices, parts, keras.initializers.RandomNormal(stddev=0.01))


def _stem(config: ResNetV2Config, parts: Parts, x: Any) -> Any:
    filters = config.stem_filters
    if config.stem in ("conv7", "conv3"):
        width, strides = (7, 2) if config.stem == "conv7" else (3, 1)
        layers = parts.conv(filters, width, strides=strides, name="stem_conv")
    else:
        first = 3 * filters // 8 if config.stem == "deep_tiered" else filters // 2
        layers = parts.conv(first, 3, strides=2, name="stem_conv1")
        layers += parts.norm_and_activation(1, prefix="stem_")
        layers += parts.conv(filters // 2, 3, name="stem_conv2")
        layers += parts.norm_and_activation(2, prefix="stem_")
        layers += parts.conv(filters, 3, name="stem_conv3")
    for layer in layers:
        x = layer(x)
    return x


def _stem_pool(config: ResNetV2Config, parts: Parts) -> list[keras.Layer]:
    return [] if config.stem_pool == "none" else parts.max_pool(config.stem_pool, "stem_pool")


class _BlockMaker:
    """Makes the blocks of one network; `channels` are those that the stage gets."""

    def __init__(self, config: ResNetV2Config, parts: Parts) -> None:
        self.config = config
        self.parts = parts
        self.channels = config.stem_filters

    def __call__(self, place: BlockPlace, name: str) -> Residual:
        config, parts = self.config, self.parts
        filters = config.filters[place.stage]
        before = parts.norm_and_activation(1)
        branch = self._basic(place, filters) if config.block == "basic" else self._bottleneck(place, filters)
        changes = place.strides > 1 or self.channels != filters or place.first_dilation != place.dilation
        if place.block > 0 or not (changes or config.project == "each"):
            return Residual([*before, *branch], shortcut="identity", drop_path_rate=place.drop_path_rate, name=name)
        return Residual(
            branch,
            preactivation=before,
            shortcut=self._shortcut(place, filters),
            drop_path_rate=place.drop_path_rate,
            name=name,
        )

    def _basic(self, place: BlockPlace, filters: int) -> list[keras.Layer]:
        config, parts = self.config, self.parts
        dropout = [keras.layers.Dropout(config.dropout_rate, name="dropout")] if config.dropout_rate else []
        return [
            *parts.conv(filters, 3, strides=place.strides, dilation=place.first_dilation, name="conv1"),
            *parts.norm_and_activation(2),
            *dropout,
            *parts.conv(filters, 3, dilation=place.dilation, zero_init=config.zero_init_last, name="conv2"),
        ]

    def _bottleneck(self, place: BlockPlace, filters: int) -> list[keras.Layer]:
        parts, inner = self.parts, filters // 4
        return [
            *parts.conv(inner, 1, name="conv1"),
            *parts.norm_and_activation(2),
            *parts.conv(inner, 3, strides=place.strides, dilation=place.first_dilation, name="conv2"),
            *parts.norm_and_activation(3),
            *parts.conv(filters, 1, zero_init=self.config.zero_init_last, name="conv3"),
        ]

    def _shortcut(self, place: BlockPlace, filters: int) -> keras.Layer:
        parts = self.parts
        if self.config.convolution == "standardized" or (self.config.shortcut == "avg_pool" and place.dilation > 1):
            layers = self._pool(place) if self.config.shortcut == "avg_pool" else []
            strides = 1 if layers else place.strides
            projection = parts.conv(filters, 1, strides=strides, name="projection")
            return keras.Sequential([*layers, *projection], name="shortcut")
        kind = AvgPoolShortcut if self.config.shortcut == "avg_pool" else ProjectionShortcut
        return kind(use_bias=False, name="shortcut")

    def _pool(self, place: BlockPlace) -> list[keras.Layer]:
        if place.strides == 1 and place.dilation == 1:
            return []
        if place.strides > 1:
            return [keras.layers.AveragePooling2D(2, padding="same", name="pool")]
        return [self.parts.zero_pad(0, 1, "pad"), *self.parts.average_pool(2, 1, name="pool")]
