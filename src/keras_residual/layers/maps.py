"""What layers of feature maps share: the channel axis, and the mean of each channel over all positions."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from keras import ops

from keras_residual._arguments import choice, owner_of
from keras_residual._errors import bad_argument
from keras_residual._types import Shape, Tensor
from keras_residual.residual.configured import ShapePreserving
from keras_residual.residual.merges.base import widen
from keras_residual.residual.shapes import channel_axis_of, spatial_axes

DATA_FORMATS = ("channels_last", "channels_first")


def as_data_format(owner: str, value: Any) -> str:
    """Returns the name of a data format; None stands for `keras.config.image_data_format()`."""
    return keras.config.image_data_format() if value is None else choice(owner, "data_format", value, DATA_FORMATS)


def check_rank(owner: str, shape: Shape, ranks: tuple[int, ...]) -> None:
    """Raises a `ValueError` where a shape, batch and channels included, has none of the ranks."""
    if len(shape) not in ranks:
        known = " or ".join([", ".join(map(str, ranks[:-1])), str(ranks[-1])] if len(ranks) > 1 else map(str, ranks))
        raise bad_argument(owner, "inputs", f"a tensor of rank {known}", tuple(shape), "The shape is shown.")


class MapLayer(ShapePreserving):
    """A layer of maps `(batch, *sizes, channels)` whose output has the shape of its input. Abstract.

    Args:
        data_format: `"channels_last"`, `"channels_first"`, or None for `keras.config.image_data_format()`.
        **kwargs: `name`, `dtype` and `trainable`, as for every Keras layer.
    """

    ranks: ClassVar[tuple[int, ...]] = (3, 4, 5)

    def __init__(self, *, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = as_data_format(owner_of(self), data_format)

    @property
    def channel_axis(self) -> int:
        """The axis of the channels, `1` or `-1`."""
        return channel_axis_of(self.data_format)

    def channels_of(self, shape: Shape) -> int:
        """Returns the number of channels of a shape; raises a `ValueError` for a wrong rank or unknown channels."""
        check_rank(owner_of(self), shape, self.ranks)
        channels = shape[self.channel_axis]
        if channels is None:
            raise bad_argument(owner_of(self), "inputs", "a tensor with a known number of channels", tuple(shape))
        return channels

    def mean(self, x: Tensor, mask: Any = None) -> Tensor:
        """Returns the mean of each channel over the valid positions, of shape `(batch, channels)`.

        Args:
            x: Maps of the layer's data format.
            mask: Booleans of shape `(batch, *sizes)`, True where a position is valid; None if all are.
        """
        axes = tuple(spatial_axes(len(x.shape), self.channel_axis))
        if mask is None:
            return ops.mean(x, axis=axes)
        wide: Any = widen(x)
        counts: Any = ops.expand_dims(ops.cast(mask, wide.dtype), self.channel_axis)
        total: Any = ops.sum(wide * counts, axis=axes)
        return ops.cast(total / ops.maximum(ops.sum(counts, axis=axes), 1), x.dtype)

    def over_positions(self, values: Tensor, like: Tensor) -> Tensor:
        """Returns values of shape `(channels,)` or `(batch, channels)`, reshaped to broadcast against `like`."""
        ones = (1,) * (len(like.shape) - 2)
        channels = values.shape[-1]
        shape = (-1, channels, *ones) if self.channel_axis == 1 else (-1, *ones, channels)
        return ops.cast(ops.reshape(values, shape), like.dtype)
