"""The ResNet on time series: a frozen configuration, and the function that builds it."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from keras_residual._errors import bad_argument
from keras_residual.models.blocks import series_block


@dataclass(frozen=True, kw_only=True, slots=True)
class SeriesResNetConfig:
    """Architecture of Wang et al.'s ResNet on series, https://arxiv.org/abs/1611.06455: blocks, global pooling, head.

    Args:
        filters: Filters of each block.
        kernel_sizes: Widths of the convolutions in each block, in time steps.
    """

    filters: tuple[int, ...] = (64, 128, 128)
    kernel_sizes: tuple[int, ...] = (8, 5, 3)

    def __post_init__(self) -> None:
        """Checks every rule, so that a config that exists can be built."""
        for argument, value in (("filters", self.filters), ("kernel_sizes", self.kernel_sizes)):
            if not value or min(value) < 1:
                raise bad_argument("SeriesResNetConfig", argument, "at least one number, each at least 1", value)


def build_series_resnet(
    config: SeriesResNetConfig,
    *,
    input_shape: tuple[int, ...],
    num_classes: int,
    drop_path_rate: float,
    execution: str | None,
    remat: bool | str,
    name: str,
) -> keras.Model:
    """Returns the model from standardised series `(time, channels)` to logits; arguments as `build_resnet`."""
    del execution, remat  # no two of its blocks are alike
    inputs = keras.Input(input_shape, name="series")
    x = inputs
    last = max(len(config.filters) - 1, 1)
    for index, filters in enumerate(config.filters):
        rate = drop_path_rate * index / last
        x = series_block(filters, config.kernel_sizes, drop_path_rate=rate, name=f"block{index + 1}")(x)
    x = keras.layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes, name="head")(x), name=name)
