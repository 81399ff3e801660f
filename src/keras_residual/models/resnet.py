"""ResNets v1 of every published kind, built from one configuration."""

from __future__ import annotations

from typing import Any

import keras

from keras_residual.layers.pooling import BlurPool2D
from keras_residual.models.parts import Parts
from keras_residual.models.resnet_blocks import BlockMaker
from keras_residual.models.resnet_config import ResNetConfig
from keras_residual.models.stages import Choices, apply_stage, finish, places


def build_resnet(config: ResNetConfig, choices: Choices) -> keras.Model:
    """Returns the model from standardised pictures to what was chosen.

    Args:
        config: The architecture.
        choices: What the user chose beside it.

    Raises:
        ValueError: For a choice that breaks its rule, see `Choices`.
    """
    choices.check(config.rank)
    parts = Parts(rank=config.rank, norm=config.norm)
    inputs = keras.Input(choices.input_shape, name="pictures")
    x = _stem(config, parts, inputs)
    features = {"stem": x}
    x = _stem_pool(config, parts, x)
    make = BlockMaker(config, parts, choices.drop_block_rate)
    stages = places(
        config.depths,
        stem_stride=config.stem_stride,
        output_stride=choices.output_stride,
        drop_path_rate=choices.drop_path_rate,
    )
    for index, blocks in enumerate(stages, start=1):
        alike = config.inner_widths is None
        x = apply_stage(x, blocks, make, alike=alike, execution=choices.execution, remat=choices.remat)
        features[f"stage{index}"] = x
    return finish(inputs, x, features, choices, parts, "glorot_uniform")


def _stem(config: ResNetConfig, parts: Parts, x: Any) -> Any:
    filters = config.stem_filters
    if config.stem in ("conv7", "conv3"):
        width, strides = (7, 2) if config.stem == "conv7" else (3, 1)
        layers = parts.conv(filters, width, strides=strides, name="stem_conv")
        layers += [parts.norm_layer("stem_norm"), parts.activation_layer("stem_relu")]
    else:
        first = 3 * (filters // 8) if config.stem == "deep_tiered" else filters // 2
        layers = []
        for index, (width, strides) in enumerate(((first, 2), (filters // 2, 1), (filters, 1)), start=1):
            layers += parts.conv(width, 3, strides=strides, name=f"stem_conv{index}")
            layers += [parts.norm_layer(f"stem_norm{index}"), parts.activation_layer(f"stem_relu{index}")]
    return _in_order(layers, x)


def _stem_pool(config: ResNetConfig, parts: Parts, x: Any) -> Any:
    kind, aliasing = config.stem_pool, config.anti_aliasing
    if kind == "none":
        return x
    if kind == "conv":
        layers = parts.conv(config.stem_filters, 3, strides=1 if aliasing else 2, name="stem_pool_conv")
        layers += _reduced(parts, aliasing)
        layers += [parts.norm_layer("stem_pool_norm"), parts.activation_layer("stem_pool_relu")]
    elif aliasing == "average":
        layers = parts.average_pool(2, 2, name="stem_pool")
    elif aliasing == "blur":
        # Behind an activation nothing is negative, so that zeros at the edge do not win.
        layers = [keras.layers.MaxPooling2D(3, strides=1, padding="same", name="stem_pool"), *_reduced(parts, aliasing)]
    else:
        layers = parts.max_pool(kind, "stem_pool")
    return _in_order(layers, x)


def _reduced(parts: Parts, aliasing: str | None) -> list[keras.Layer]:
    if aliasing is None:
        return []
    if aliasing == "average":
        return parts.average_pool(2, 2, name="stem_pool_average")
    return [BlurPool2D(2, name="stem_pool_blur")]


def _in_order(layers: list[keras.Layer], x: Any) -> Any:
    for layer in layers:
        x = layer(x)
    return x
