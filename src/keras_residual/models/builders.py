"""From an architecture to a model with random weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras

from keras_residual._arguments import share
from keras_residual._errors import bad_argument, wrong_type
from keras_residual.models.resnet import build_resnet
from keras_residual.models.resnet_config import ResNetConfig
from keras_residual.models.resnet_v2 import ResNetV2Config, build_resnet_v2
from keras_residual.models.series import SeriesResNetConfig, build_series_resnet
from keras_residual.models.stages import Choices, check_input_shape
from keras_residual.models.tabular import TabularResNetConfig, build_tabular_resnet
from keras_residual.stacks.initial_values import draw_on_host

_ON_MAPS: dict[type, Callable[[Any, Choices], keras.Model]] = {
    ResNetConfig: build_resnet,
    ResNetV2Config: build_resnet_v2,
}
_OTHERS: dict[type, tuple[Callable[..., keras.Model], int, str]] = {
    SeriesResNetConfig: (build_series_resnet, 2, "(time, channels)"),
    TabularResNetConfig: (build_tabular_resnet, 1, "(features,)"),
}
_FOR_MAPS_ONLY = {
    "include_top": True,
    "features_only": False,
    "drop_block_rate": 0.0,
    "dropout_rate": 0.0,
    "output_stride": 32,
}


def build(config: Any, choices: Choices) -> keras.Model:
    """Returns a new model of an architecture, with random weights.

    Args:
        config: One of the configurations in the catalogue.
        choices: What the user chose beside it.

    Raises:
        ValueError: For a choice that breaks its rule, or that this architecture does not have.
    """
    if type(config) in _ON_MAPS:
        return draw_on_host(functools.partial(_ON_MAPS[type(config)], config, choices))
    make, rank, form = _OTHERS[type(config)]
    shape, owner = choices.input_shape, choices.owner
    check_input_shape(owner, shape, f"{form} for {choices.name!r}", rank)
    choices.check_num_classes()
    for argument, default in _FOR_MAPS_ONLY.items():
        if getattr(choices, argument) != default:
            rule = f"{default} for {choices.name!r}, which is no network on pictures"
            raise bad_argument(owner, argument, rule, getattr(choices, argument))
    return draw_on_host(
        functools.partial(
            make,
            config,
            input_shape=shape,
            num_classes=choices.num_classes,
            drop_path_rate=share(owner, "drop_path_rate", choices.drop_path_rate),
            execution=choices.execution,
            remat=choices.remat,
            name=choices.name,
        )
    )


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
        TypeError: For something that is no `ResNetConfig`.

    Example:
        >>> config = ResNetConfig(block="basic", depths=(1, 1, 1, 1))
        >>> ResNet(config, input_shape=(64, 64, 3), num_classes=10).output_shape
        (None, 10)

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2015. https://arxiv.org/abs/1512.03385
    """
    if not isinstance(config, ResNetConfig):
        raise wrong_type("ResNet", "config", "a ResNetConfig", config, "By name: create_model.")
    made = Choices(input_shape=input_shape, num_classes=num_classes, **{"name": "resnet", **choices}, owner="ResNet")
    return build(config, made)


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
        TypeError: For something that is no `ResNetV2Config`.

    Example:
        >>> config = ResNetV2Config(block="basic", depths=(1, 1), filters=(16, 32))
        >>> ResNetV2(config, input_shape=(64, 64, 3), num_classes=10).output_shape
        (None, 10)

    Reference:
        He et al., Identity Mappings in Deep Residual Networks, 2016. https://arxiv.org/abs/1603.05027
    """
    if not isinstance(config, ResNetV2Config):
        raise wrong_type("ResNetV2", "config", "a ResNetV2Config", config, "By name: create_model.")
    made = Choices(
        input_shape=input_shape, num_classes=num_classes, **{"name": "resnet_v2", **choices}, owner="ResNetV2"
    )
    return build(config, made)
