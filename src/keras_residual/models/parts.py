"""The layers from which networks in stages are built: convolutions, norms, activations and pools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from keras_residual.layers.norms import EvoNormS0, FilterResponseNorm
from keras_residual.layers.pooling import SymmetricMaxPool2D
from keras_residual.layers.weight_standardization import WSConv2D
from keras_residual.residual.norms import BatchNormalization
from keras_residual.residual.symmetric_conv import SymmetricConv2D

_CONVOLUTIONS = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D, 3: keras.layers.Conv3D}
_PADDINGS = {1: keras.layers.ZeroPadding1D, 2: keras.layers.ZeroPadding2D, 3: keras.layers.ZeroPadding3D}
_AVERAGES = {1: keras.layers.AveragePooling1D, 2: keras.layers.AveragePooling2D, 3: keras.layers.AveragePooling3D}
_MAXIMA = {1: keras.layers.MaxPooling1D, 2: keras.layers.MaxPooling2D, 3: keras.layers.MaxPooling3D}
_GLOBAL_AVERAGES = {
    1: keras.layers.GlobalAveragePooling1D,
    2: keras.layers.GlobalAveragePooling2D,
    3: keras.layers.GlobalAveragePooling3D,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """Makes the layers of one network, with the choices that they share.

    Args:
        rank: Number of spatial dimensions: 1, 2 or 3.
        norm: `"batch_norm"` (epsilon 1e-5, and PyTorch's momentum 0.1, which is Keras's 0.9), `"group_norm"` of 32
            groups, `"evonorm_s0"` or `"filter_response_norm"`; the last two are activations as well.
        convolution: `"plain"`, or `"standardized"` for weight standardisation as Big Transfer has it.
    """

    rank: int = 2
    norm: str = "batch_norm"
    convolution: str = "plain"

    @property
    def channel_axis(self) -> int:
        """The axis of the channels, by Keras's image data format."""
        return 1 if keras.config.image_data_format() == "channels_first" else -1

    def conv(
        self,
        filters: int,
        width: int,
        *,
        strides: int = 1,
        dilation: int = 1,
        groups: int = 1,
        zero_init: bool = False,
        name: str,
    ) -> list[keras.Layer]:
        """Returns a convolution without bias, padded alike on both sides as the published networks are."""
        initializer = keras.initializers.Zeros() if zero_init else keras.initializers.VarianceScaling(2, mode="fan_out")
        arguments: dict[str, Any] = {
            "strides": strides,
            "dilation_rate": dilation,
            "groups": groups,
            "use_bias": False,
            "kernel_initializer": initializer,
            "name": name,
        }
        if self.rank == 2 and self.convolution == "plain":
            return [SymmetricConv2D(filters, width, **arguments)]
        layers: list[keras.Layer] = []
        padding = "same"
        if strides > 1 and width > 1:
            # "same" pads a strided convolution more at the end.
            layers.append(_PADDINGS[self.rank](dilation * (width // 2), name=f"{name}_pad"))
            padding = "valid"
        if self.convolution == "standardized":
            return [*layers, WSConv2D(filters, width, epsilon=1e-8, padding=padding, **arguments)]
        return [*layers, _CONVOLUTIONS[self.rank](filters, width, padding=padding, **arguments)]

    def norm_layer(self, name: str, *, zero_init: bool = False) -> keras.Layer:
        """Returns the norm without an activation; with `zero_init` its scale starts at zero."""
        gamma = "zeros" if zero_init else "ones"
        if self.norm == "batch_norm":
            return batch_norm(name, zero_init=zero_init)
        if self.norm == "group_norm":
            return keras.layers.GroupNormalization(
                32, axis=self.channel_axis, epsilon=1e-5, gamma_initializer=gamma, name=name
            )
        if self.norm == "evonorm_s0":
            return EvoNormS0(apply_activation=False, name=name)
        return FilterResponseNorm(apply_threshold=False, name=name)

    def norm_and_activation(self, index: str | int, prefix: str = "") -> list[keras.Layer]:
        """Returns `normN` and the activation after it, `reluN`, as one layer where the norm is both."""
        name = f"{prefix}norm{index}"
        if self.norm == "evonorm_s0":
            return [EvoNormS0(name=name)]
        if self.norm == "filter_response_norm":
            return [FilterResponseNorm(name=name)]
        return [self.norm_layer(name), self.activation_layer(f"{prefix}relu{index}")]

    def activation_layer(self, name: str) -> keras.Layer:
        """Returns the activation as a layer."""
        return keras.layers.ReLU(name=name)

    def max_pool(self, kind: str, name: str) -> list[keras.Layer]:
        """Returns max pooling 3 wide with stride 2.

        Args:
            kind: `"max"` reaches over each edge, which never wins; `"max_zero"` has zeros there, which win against
                negative values; `"max_ceil"`, of a map without these, reaches over the end of an even size (Caffe's).
            name: Name of the pooling.
        """
        if self.rank == 2 and kind == "max":
            return [SymmetricMaxPool2D(3, strides=2, name=name)]
        # In other ranks "max" gets the output of an activation, where zeros do not win. Behind an odd size the padded
        # position is not reached.
        before = 0 if kind == "max_ceil" else 1
        return [self.zero_pad(before, 1, f"{name}_pad"), _MAXIMA[self.rank](3, strides=2, padding="valid", name=name)]

    def zero_pad(self, before: int, after: int, name: str) -> keras.Layer:
        """Returns zeros at both ends of each spatial axis."""
        margins = (before, after)
        return _PADDINGS[self.rank](margins if self.rank == 1 else (margins,) * self.rank, name=name)

    def average_pool(self, width: int, strides: int, *, pad: int = 0, name: str) -> list[keras.Layer]:
        """Returns average pooling; zeros that pad it are averaged too."""
        layers: list[keras.Layer] = []
        if pad:
            layers.append(_PADDINGS[self.rank](pad, name=f"{name}_pad"))
        return [*layers, _AVERAGES[self.rank](width, strides=strides, padding="valid", name=name)]

    def global_average_pool(self, name: str) -> keras.Layer:
        """Returns the mean over all positions."""
        return _GLOBAL_AVERAGES[self.rank](name=name)


def batch_norm(name: str, *, zero_init: bool = False) -> BatchNormalization:
    """Returns a batch norm with PyTorch's epsilon and momentum, on the channel axis of Keras's image data format."""
    axis = 1 if keras.config.image_data_format() == "channels_first" else -1
    gamma = "zeros" if zero_init else "ones"
    # PyTorch's momentum 0.1 is Keras's 0.9.
    return BatchNormalization(axis=axis, epsilon=1e-5, momentum=0.9, gamma_initializer=gamma, name=name)
