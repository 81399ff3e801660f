"""The ResNet on tables: a frozen configuration, and the function that builds it."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from keras_residual._errors import bad_argument
from keras_residual.models.blocks import batch_norm, tabular_block
from keras_residual.models.stages import stacked


@dataclass(frozen=True, kw_only=True, slots=True)
class TabularResNetConfig:
    """Architecture of Gorishniy et al.'s ResNet on tables, https://arxiv.org/abs/2106.11959, section 3.2.

    Args:
        units: Width of the stream.
        depth: Number of blocks.
        hidden_factor: Width inside a block over that of the stream.
        hidden_dropout: Dropout rate in `[0, 1)` after a block's activation.
        residual_dropout: Dropout rate in `[0, 1)` at a branch's end.
    """

    units: int = 64
    depth: int = 3
    hidden_factor: int = 2
    hidden_dropout: float = 0.2
    residual_dropout: float = 0.0

    def __post_init__(self) -> None:
        """Checks every rule, so that a config that exists can be built."""
        for argument in ("units", "depth", "hidden_factor"):
            if getattr(self, argument) < 1:
                raise bad_argument("TabularResNetConfig", argument, "at least 1", getattr(self, argument))
        for argument in ("hidden_dropout", "residual_dropout"):
            if not 0 <= getattr(self, argument) < 1:
                raise bad_argument("TabularResNetConfig", argument, "a rate in [0, 1)", getattr(self, argument))


def build_tabular_resnet(
    config: TabularResNetConfig,
    *,
    input_shape: tuple[int, ...],
    num_classes: int,
    drop_path_rate: float,
    execution: str | None,
    remat: bool | str,
    name: str,
) -> keras.Model:
    """Returns the model from standardised columns `(features,)` to logits; arguments as `build_resnet`."""
    inputs = keras.Input(input_shape, name="columns")
    x = keras.layers.Dense(config.units, name="stem")(inputs)
    block = tabular_block(
        config.units,
        config.hidden_factor * config.units,
        hidden_dropout=config.hidden_dropout,
        residual_dropout=config.residual_dropout,
        name="block",
    )
    x = stacked(block, config.depth, execution, drop_path_rate=drop_path_rate, remat=remat, name="blocks")(x)
    x = batch_norm("head_norm")(x)
    x = keras.layers.ReLU(name="head_relu")(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes, name="head")(x), name=name)
