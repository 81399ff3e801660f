"""ResNets on pictures: a frozen configuration, and the one function that builds it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import keras

from keras_residual._errors import bad_argument, unknown_name
from keras_residual.layers.residual import Residual
from keras_residual.layers.shortcuts import ZeroPadShortcut
from keras_residual.models.blocks import (
    basic_block,
    batch_norm,
    bottleneck_block,
    preact_basic_block,
    preact_bottleneck_block,
)
from keras_residual.stacks.stack import ResidualStack

BLOCKS = ("basic", "bottleneck", "preact_basic", "preact_bottleneck")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResNetConfig:
    """Architecture of a ResNet for small pictures: a 3×3 stem, stages of blocks, global pooling and a linear head.

    Args:
        block: `"basic"` or `"bottleneck"` (v1), `"preact_basic"` or `"preact_bottleneck"` (v2).
        depths: Number of blocks in each stage; each stage after the first halves the map.
        widths: Filters in each stage, before the bottleneck's expansion by 4.
        stem_filters: Filters of the stem.
        shortcut: What v1 does where shapes change: `"projection"` (option B) or `"zero_pad"` (option A).
        zero_init_last: Whether the last norm's scale of each v1 block starts at zero.
    """

    block: Literal["basic", "bottleneck", "preact_basic", "preact_bottleneck"]
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    stem_filters: int = 16
    shortcut: Literal["projection", "zero_pad"] = "projection"
    zero_init_last: bool = True

    def __post_init__(self) -> None:
        """Checks every rule, so that a config that exists can be built."""
        if self.block not in BLOCKS:
            raise unknown_name("ResNetConfig", "block", self.block, BLOCKS)
        if not self.depths or min(self.depths) < 1:
            raise bad_argument("ResNetConfig", "depths", "at least one stage of at least one block", self.depths)
        if len(self.widths) != len(self.depths) or min(self.widths) < 1:
            rule = f"one positive number a stage, {len(self.depths)} in all"
            raise bad_argument("ResNetConfig", "widths", rule, self.widths)
        if self.shortcut not in ("projection", "zero_pad"):
            raise unknown_name("ResNetConfig", "shortcut", self.shortcut, ["projection", "zero_pad"])


def build_resnet(
    config: ResNetConfig,
    *,
    input_shape: tuple[int, ...],
    num_classes: int,
    drop_path_rate: float,
    execution: str,
    remat: bool | str,
    name: str,
) -> keras.Model:
    """Returns the model from standardised pictures to logits.

    Args:
        config: The architecture.
        input_shape: `(height, width, channels)`, or channels first where Keras is set so.
        num_classes: Number of logits.
        drop_path_rate: Rate of the last block, in `[0, 1)`; it rises linearly from 0 at the first, as in timm.
        execution: How the equal blocks of each stage are executed, see `ResidualStack`.
        remat: Which of their activations are computed anew in the backward pass, see there.
        name: Name of the model.
    """
    preact = config.block.startswith("preact")
    inputs = keras.Input(input_shape, name="pictures")
    x = keras.layers.Conv2D(
        config.stem_filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal", name="stem_conv"
    )(inputs)
    if not preact:
        x = batch_norm("stem_norm")(x)
        x = keras.layers.ReLU(name="stem_relu")(x)
    channel_axis = 1 if keras.config.image_data_format() == "channels_first" else -1
    last, done = max(sum(config.depths) - 1, 1), 0
    for stage, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True), start=1):
        make = functools.partial(_block, config, width, channels=x.shape[channel_axis])
        # The first block of a stage changes the shape, or may; the others are alike.
        strides, rates = 2 if stage > 1 else 1, [drop_path_rate * (done + i) / last for i in range(depth)]
        x = make(strides=strides, drop_path_rate=rates[0], name=f"stage{stage}_block1")(x)
        if depth > 1:
            rest = _block(config, width, strides=1, channels=x.shape[channel_axis], drop_path_rate=0.0, name="block")
            x = ResidualStack(
                rest, depth - 1, drop_path_rate=rates[1:], execution=execution, remat=remat, name=f"stage{stage}_blocks"
            )(x)
        done += depth
    if preact:
        x = batch_norm("head_norm")(x)
        x = keras.layers.ReLU(name="head_relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes, name="head")(x), name=name)


def _block(
    config: ResNetConfig, width: int, *, strides: int, channels: int, drop_path_rate: float, name: str
) -> Residual:
    if config.block in ("preact_basic", "preact_bottleneck"):
        make, expansion = (preact_basic_block, 1) if config.block == "preact_basic" else (preact_bottleneck_block, 4)
        project = strides > 1 or channels != expansion * width
        return make(width, strides, project=project, drop_path_rate=drop_path_rate, name=name)
    make = basic_block if config.block == "basic" else bottleneck_block
    # The CIFAR checkpoints in use pad on both sides of the channels.
    shortcut = ZeroPadShortcut(pad="both", always=False, name="shortcut") if config.shortcut == "zero_pad" else None
    return make(
        width,
        strides,
        shortcut=shortcut,
        zero_init_last=config.zero_init_last,
        drop_path_rate=drop_path_rate,
        name=name,
    )
