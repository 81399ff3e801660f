"""From an architecture to a model with random weights: stem, stages of blocks, and head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras

from keras_residual._errors import wrong_type
from keras_residual.layers.pooling import BlurPool2D
from keras_residual.models.block_maker import BlockMaker, BlockPlace
from keras_residual.models.blocks import series_block, tabular_block
from keras_residual.models.config import (
    Choices,
    Config,
    ResNetConfig,
    ResNetV2Config,
    SeriesResNetConfig,
    StagedConfig,
    TabularResNetConfig,
)
from keras_residual.models.parts import Parts, batch_norm
from keras_residual.stacks.initial_values import draw_on_host
from keras_residual.stacks.stack import ResidualStack

SCANNED_FROM = 48
"""Number of equal blocks in a row from which a model by name is built with `execution="auto"`.

Shorter rows are layers of their own, as in any Keras model, which can be frozen, quantised or given adapters one by
one. Longer ones would take JAX minutes to compile.
"""


def build(config: Config, choices: Choices) -> keras.Model:
    """Returns a new model of an architecture, with random weights.

    Args:
        config: One of the configurations in the catalogue.
        choices: What the user chose besides.

    Raises:
        ValueError: For a choice that breaks its rule, or that this architecture does not offer.
    """
    choices.check(config)
    if isinstance(config, SeriesResNetConfig):
        return draw_on_host(lambda: _series(config, choices))
    if isinstance(config, TabularResNetConfig):
        return draw_on_host(lambda: _table(config, choices))
    return draw_on_host(lambda: _staged(config, choices))


def ResNet(  # noqa: N802 - as keras.applications names its networks
    config: ResNetConfig, *, input_shape: tuple[int | None, ...], num_classes: int = 1000, **choices: Any
) -> keras.Model:
    """Returns a ResNet v1 of any architecture, with random weights.

    Args:
        config: The architecture.
        input_shape: `(height, width, channels)`, or channels first where Keras is set so; sizes may be None.
        num_classes: Number of logits.
        **choices: `include_top`, `features_only`, `drop_path_rate`, `drop_block_rate`, `dropout_rate`,
            `output_stride`, `execution`, `remat` and `name`, as in `create_model`.

    Raises:
        ValueError: For a choice that breaks its rule.
        TypeError: If `config` is not a `ResNetConfig`.

    Example:
        >>> config = ResNetConfig(block="basic", depths=(1, 1, 1, 1))
        >>> ResNet(config, input_shape=(64, 64, 3), num_classes=10).output_shape
        (None, 10)

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2015. https://arxiv.org/abs/1512.03385
    """
    if not isinstance(config, ResNetConfig):
        raise wrong_type("ResNet", "config", "a ResNetConfig", config, "By name: create_model.")
    choices = {"name": "resnet", **choices}
    return build(config, Choices(input_shape=input_shape, num_classes=num_classes, **choices, owner="ResNet"))


def ResNetV2(  # noqa: N802
    config: ResNetV2Config, *, input_shape: tuple[int | None, ...], num_classes: int = 1000, **choices: Any
) -> keras.Model:
    """Returns a ResNet v2 of any architecture, with random weights; arguments as in `ResNet`.

    Args:
        config: The architecture.
        input_shape: `(height, width, channels)`, or channels first where Keras is set so; sizes may be None.
        num_classes: Number of logits.
        **choices: As in `ResNet`, without `drop_block_rate`.

    Raises:
        ValueError: For a choice that breaks its rule.
        TypeError: If `config` is not a `ResNetV2Config`.

    Example:
        >>> config = ResNetV2Config(block="basic", depths=(1, 1), filters=(16, 32))
        >>> ResNetV2(config, input_shape=(64, 64, 3), num_classes=10).output_shape
        (None, 10)

    Reference:
        He et al., Identity Mappings in Deep Residual Networks, 2016. https://arxiv.org/abs/1603.05027
    """
    if not isinstance(config, ResNetV2Config):
        raise wrong_type("ResNetV2", "config", "a ResNetV2Config", config, "By name: create_model.")
    choices = {"name": "resnet_v2", **choices}
    return build(config, Choices(input_shape=input_shape, num_classes=num_classes, **choices, owner="ResNetV2"))


# --- Networks in stages -----------------------------------------------------------------------------------------------


def _staged(config: StagedConfig, choices: Choices) -> keras.Model:
    parts = Parts(rank=config.rank, norm=config.norm, convolution=config.convolution)
    inputs = keras.Input(choices.input_shape, name="pictures")
    x = _apply(_stem(config, parts), inputs)
    features = {"stem": x}
    x = _apply(_stem_pool(config, parts), x)
    make = BlockMaker(config, parts, choices.drop_block_rate)
    for index, blocks in enumerate(_places(config, choices), start=1):
        x = _stage(x, blocks, make, choices)
        features[f"stage{index}"] = x
    if choices.features_only:
        return keras.Model(inputs, features, name=choices.name)
    if config.preactivation:
        x = _apply(parts.norm_and_activation("", prefix="head_"), x)
    if choices.include_top:
        x = parts.global_average_pool("pool")(x)
        if choices.dropout_rate:
            x = keras.layers.Dropout(choices.dropout_rate, name="dropout")(x)
        kernel: Any = keras.initializers.RandomNormal(stddev=0.01) if config.preactivation else "glorot_uniform"
        x = keras.layers.Dense(choices.num_classes, kernel_initializer=kernel, name="head")(x)
    return keras.Model(inputs, x, name=choices.name)


def _stem(config: StagedConfig, parts: Parts) -> list[keras.Layer]:
    *before, last = config.stem_widths
    width, stride = (7, 2) if config.stem == "conv7" else (3, 1 if config.stem == "conv3" else 2)
    layers: list[keras.Layer] = []
    for index, filters in enumerate(before, start=1):
        layers += parts.conv(filters, width, strides=stride if index == 1 else 1, name=f"stem_conv{index}")
        layers += parts.norm_and_activation(index, prefix="stem_")
    number = len(before) + 1 if before else ""
    layers += parts.conv(last, width, strides=1 if before else stride, name=f"stem_conv{number}")
    # The first pre-activation block begins with the norm.
    return layers if config.preactivation else [*layers, *parts.norm_and_activation(number, prefix="stem_")]


def _stem_pool(config: StagedConfig, parts: Parts) -> list[keras.Layer]:
    kind, aliasing = config.stem_pool, config.anti_aliasing
    if kind == "none":
        return []
    if kind == "conv":
        layers = parts.conv(config.stem_filters, 3, strides=1 if aliasing else 2, name="stem_pool_conv")
        if aliasing == "average":
            layers += parts.average_pool(2, 2, name="stem_pool_average")
        elif aliasing == "blur":
            layers += [BlurPool2D(2, name="stem_pool_blur")]
        return [*layers, *parts.norm_and_activation("", prefix="stem_pool_")]
    if aliasing == "average":
        return parts.average_pool(2, 2, name="stem_pool")
    if aliasing == "blur":
        # Behind an activation nothing is negative, so that zeros at the edge do not win.
        pool = keras.layers.MaxPooling2D(3, strides=1, padding="same", name="stem_pool")
        return [pool, BlurPool2D(2, name="stem_pool_blur")]
    return parts.max_pool(kind, "stem_pool")


def _places(config: StagedConfig, choices: Choices) -> list[list[BlockPlace]]:
    """Returns where each block of each stage stands."""
    last = max(sum(config.depths) - 1, 1)
    stride, dilation, previous = config.stem_stride, 1, 1
    found: list[list[BlockPlace]] = []
    for stage, depth in enumerate(config.depths):
        strides = 1 if stage == 0 else 2
        if stride >= choices.output_stride:
            dilation, strides = dilation * strides, 1
        stride *= strides
        before = sum(config.depths[:stage])
        found.append(
            [
                BlockPlace(
                    stage=stage,
                    block=block,
                    strides=1 if block else strides,
                    dilation=dilation,
                    first_dilation=dilation if block else previous,
                    drop_path_rate=choices.drop_path_rate * (before + block) / last,
                )
                for block in range(depth)
            ]
        )
        previous = dilation
    return found


def _stage(x: Any, blocks: Sequence[BlockPlace], make: BlockMaker, choices: Choices) -> Any:
    """Returns the map after a stage: its first block, which may change the shape, and a stack of the others."""
    first, rest, stage = blocks[0], blocks[1:], blocks[0].stage + 1
    x = make(first, f"stage{stage}_block1")(x)
    if not rest:
        return x
    rates = [place.drop_path_rate for place in rest]
    # The stack sets the rates, so that they may differ within one compiled block.
    places = [replace(place, drop_path_rate=0.0) for place in rest]
    alike = make.config.inner_widths is None
    block: Any = make(places[0], "block") if alike else lambda index: make(places[index], "block")
    return _stack(block, len(rest), choices, drop_path_rate=rates, name=f"stage{stage}_blocks")(x)


def _stack(block: Any, depth: int, choices: Choices, *, drop_path_rate: Any, name: str) -> ResidualStack:
    few = choices.execution is None and depth < SCANNED_FROM
    execution = ("unrolled" if few else "auto") if choices.execution is None else choices.execution
    stack = ResidualStack(
        block, depth, execution=execution, drop_path_rate=drop_path_rate, remat=choices.remat, name=name
    )
    if few:
        stack.execution_reason = "a model by name has each of its layers where Keras reaches it, unless asked otherwise"
    return stack


def _apply(layers: Sequence[keras.Layer], x: Any) -> Any:
    for layer in layers:
        x = layer(x)
    return x


# --- Networks on series and tables ------------------------------------------------------------------------------------


def _series(config: SeriesResNetConfig, choices: Choices) -> keras.Model:
    # No two of its blocks are alike, so that there is nothing to stack.
    inputs = x = keras.Input(choices.input_shape, name="series")
    last = max(len(config.filters) - 1, 1)
    for index, filters in enumerate(config.filters):
        rate = choices.drop_path_rate * index / last
        x = series_block(filters, config.kernel_sizes, drop_path_rate=rate, name=f"block{index + 1}")(x)
    x = keras.layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(choices.num_classes, name="head")(x), name=choices.name)


def _table(config: TabularResNetConfig, choices: Choices) -> keras.Model:
    inputs = keras.Input(choices.input_shape, name="columns")
    block = tabular_block(
        config.units,
        config.hidden_factor * config.units,
        hidden_dropout=config.hidden_dropout,
        residual_dropout=config.residual_dropout,
        name="block",
    )
    layers = [
        keras.layers.Dense(config.units, name="stem"),
        _stack(block, config.depth, choices, drop_path_rate=choices.drop_path_rate, name="blocks"),
        batch_norm("head_norm"),
        keras.layers.ReLU(name="head_relu"),
        keras.layers.Dense(choices.num_classes, name="head"),
    ]
    return keras.Model(inputs, _apply(layers, inputs), name=choices.name)
