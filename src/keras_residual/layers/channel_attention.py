"""Channel attention: each channel times a gate that is computed from the means of the channels over all positions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_residual._arguments import owner_of, positive, whole_number
from keras_residual._errors import bad_argument, unknown_name, wrong_type
from keras_residual._types import Shape, Tensor
from keras_residual.layers.maps import MapLayer
from keras_residual.residual.serialization import register


@register
class SqueezeExcite(MapLayer):
    """Multiplies each channel by a gate: `y = x * gate(W_2 activation(W_1 mean(x) + b_1) + b_2)`.

    The mean is that of each channel over all positions. `W_1` has `ratio * channels` units, rounded to the nearest
    multiple of `divisor` (halves up) and at least `divisor`.

    Args:
        ratio: Ratio of the inner units to the channels, above 0.
        divisor: The number of inner units is a multiple of this, at least 1. With 1 it is `channels // 16` where 16
            divides the channels, as in the authors' SENet.
        activation: Activation between the dense layers: a name or a function.
        gate: Activation that produces the gates: a name or a function, for example `"hard_sigmoid"`.
        data_format: `"channels_last"`, `"channels_first"`, or None for `keras.config.image_data_format()`.
        **kwargs: `name`, `dtype` and `trainable`, as for every Keras layer.

    Call arguments:
        inputs: Tensor of shape `(batch, *sizes, channels)` with 1 to 3 sizes, or channels first by `data_format`.
        mask: Booleans of shape `(batch, *sizes)`; the mean is taken over the positions where they are True.

    Output shape:
        The shape of the input.

    Raises:
        ValueError: For an argument out of range, and for an input of another rank or of unknown channels.

    Example:
        >>> layer = kr.layers.SqueezeExcite(ratio=0.25)
        >>> tuple(layer(np.ones((1, 7, 7, 64))).shape)
        (1, 7, 7, 64)
        >>> layer.reduce.units
        16

    Reference:
        Hu et al., Squeeze-and-Excitation Networks, 2017. https://arxiv.org/abs/1709.01507, eq. 2 to 4
    """

    def __init__(
        self,
        ratio: float = 1 / 16,
        *,
        divisor: int = 8,
        activation: str | Callable[..., Any] | None = "relu",
        gate: str | Callable[..., Any] = "sigmoid",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format=data_format, **kwargs)
        owner = owner_of(self)
        self.ratio = positive(owner, "ratio", ratio)
        self.divisor = whole_number(owner, "divisor", divisor)
        self.activation = None if activation is None else _as_function(owner, "activation", activation)
        self.gate = _as_function(owner, "gate", gate)

    def build(self, input_shape: Shape) -> None:
        """Adds the dense layers."""
        channels = self.channels_of(input_shape)
        units = inner_units(channels, self.ratio, self.divisor)
        dense, policy = keras.layers.Dense, self.dtype_policy
        self.reduce = self._made("reduce", dense(units, activation=self.activation, dtype=policy, name="reduce"))
        self.expand = self._made("expand", dense(channels, activation=self.gate, dtype=policy, name="expand"))
        self.reduce.build((None, channels))
        self.expand.build((None, units))

    def call(self, inputs: Tensor, mask: Any = None) -> Tensor:
        """Multiplies each channel by its gate."""
        gates = self.expand(self.reduce(self.mean(inputs, mask)))
        return inputs * self.over_positions(gates, inputs)


def inner_units(channels: int, ratio: float, divisor: int) -> int:
    """Returns the multiple of `divisor` nearest to `ratio * channels`, the larger of two, at least `divisor`."""
    return max(divisor, int(channels * ratio + divisor / 2) // divisor * divisor)


def _as_function(owner: str, argument: str, value: Any) -> Any:
    """Returns the function that a name or a function stands for; a name may be a saved function's configuration."""
    if isinstance(value, (type, keras.Layer)) or not (callable(value) or isinstance(value, (str, dict))):
        raise wrong_type(owner, argument, "a name or a function, not a layer", value)
    if isinstance(value, str):
        others = ("get", "serialize", "deserialize")
        known = sorted(name for name in vars(keras.activations) if not name.startswith("_") and name not in others)
        if value not in known:
            raise unknown_name(owner, argument, value, known)
    return keras.activations.get(value)


GAMMA = 2
BETA = 1


@register
class EfficientChannelAttention(MapLayer):
    """Multiplies each channel by a gate: `y = x * sigmoid(w * mean(x))`, with a convolution over the channels.

    The mean is that of each channel over all positions. The convolution has `kernel_size` weights in all and no bias,
    and pads the channels with zeros.

    Args:
        kernel_size: Number of neighboring channels, an odd number. None derives it from the number of channels `C`:
            the integer part of `|log2(C) + 1| / 2`, plus 1 if that is even, and at least 3.
        data_format: `"channels_last"`, `"channels_first"`, or None for `keras.config.image_data_format()`.
        **kwargs: `name`, `dtype` and `trainable`, as for every Keras layer.

    Call arguments:
        inputs: Tensor of shape `(batch, *sizes, channels)` with 1 to 3 sizes, or channels first by `data_format`.
        mask: Booleans of shape `(batch, *sizes)`; the mean is taken over the positions where they are True.

    Output shape:
        The shape of the input.

    Raises:
        ValueError: For an even `kernel_size`, and for an input of another rank or of unknown channels.

    Example:
        >>> layer = kr.layers.EfficientChannelAttention()
        >>> tuple(layer(np.ones((1, 7, 7, 256))).shape)
        (1, 7, 7, 256)
        >>> tuple(layer.conv.kernel.shape)
        (5, 1, 1)

    Reference:
        Wang et al., ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks, 2019.
        https://arxiv.org/abs/1910.03151, eq. 9 and 12
    """

    def __init__(self, kernel_size: int | None = None, *, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(data_format=data_format, **kwargs)
        if kernel_size is not None:
            kernel_size = whole_number(owner_of(self), "kernel_size", kernel_size)
            if kernel_size % 2 == 0:
                way_out = f"Pass {kernel_size + 1}, or None to derive it from the number of channels."
                raise bad_argument(owner_of(self), "kernel_size", "an odd number", kernel_size, way_out)
        self.kernel_size = kernel_size

    def build(self, input_shape: Shape) -> None:
        """Adds the convolution."""
        channels = self.channels_of(input_shape)
        conv = keras.layers.Conv1D(
            1,
            self.kernel_size or adaptive_kernel_size(channels),
            padding="same",
            data_format="channels_last",
            use_bias=False,
            dtype=self.dtype_policy,
            name="conv",
        )
        self.conv = self._made("conv", conv)
        self.conv.build((None, channels, 1))

    def call(self, inputs: Tensor, mask: Any = None) -> Tensor:
        """Multiplies each channel by its gate."""
        means = ops.expand_dims(self.mean(inputs, mask), -1)
        gates: Any = ops.sigmoid(ops.squeeze(self.conv(means), -1))
        return inputs * self.over_positions(gates, inputs)


def adaptive_kernel_size(channels: int) -> int:
    """Returns the odd kernel size for a number of channels: 3 to 63 of them have 3, 512 have 5, 2048 have 7."""
    size = int(abs(math.log2(channels) + BETA) / GAMMA)
    return max(size if size % 2 else size + 1, 3)
