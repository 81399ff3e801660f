"""Convolutions whose kernel is standardised where it is used, and the plain one of them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import keras
from keras import ops

from keras_residual._arguments import owner_of, positive
from keras_residual.residual.configured import Configured
from keras_residual.residual.merges.base import widen
from keras_residual.residual.serialization import register


class StandardizedConvolution(Configured):
    """A convolution that computes its kernel from its weights at each call. Abstract: a leaf gives `standardized`."""

    @abstractmethod
    def standardized(self, kernel: Any) -> Any:
        """Returns what to convolve with for weights of shape `(*sizes, channels in a group, filters)`."""
        raise NotImplementedError(f"{type(self).__name__} must define `standardized(kernel)`.")

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolves with the standardised kernel."""
        convolution: Any = self
        return ops.conv(
            inputs,
            self.standardized(kernel),
            strides=convolution.strides,
            # Causal padding has been done by then.
            padding="valid" if convolution.padding == "causal" else convolution.padding,
            dilation_rate=convolution.dilation_rate,
            data_format=convolution.data_format,
        )


def centred(kernel: Any) -> tuple[Any, tuple[int, ...]]:
    """Returns the weights of each filter less their mean, and the axes along which they lie."""
    # In float32 at least: sums over squares of half-precision weights are too coarse.
    weights: Any = widen(kernel)
    axes = tuple(range(len(kernel.shape) - 1))
    return weights - ops.mean(weights, axis=axes, keepdims=True), axes


@register
class WSConv2D(StandardizedConvolution, keras.layers.Conv2D):
    """A 2-D convolution with weight standardisation, which group norms go with.

    The kernel it convolves with is `(w - mean(w)) / sqrt(var(w) + epsilon)`, with the mean and the variance of each
    filter's weights. It has no gain; that of `ScaledWSConv2D` has, for networks without norms.

    Args:
        filters: Number of filters.
        kernel_size: Size of the window: a number or a pair.
        epsilon: Added to the variance, above 0; 1e-8 in BiT.
        **kwargs: What `keras.layers.Conv2D` takes.

    Call arguments:
        inputs: Tensor of shape `(batch, height, width, channels)`, or channels first by `data_format`.

    Output shape:
        That of `keras.layers.Conv2D`.

    Raises:
        ValueError: For an `epsilon` that is not above 0.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from keras_residual.layers.standardized_conv import WSConv2D
        >>> tuple(WSConv2D(8, 3, padding="same")(np.ones((1, 5, 5, 4))).shape)
        (1, 5, 5, 8)

    Reference:
        Qiao et al., Micro-Batch Training with Batch-Channel Normalization and Weight Standardization, 2019.
        https://arxiv.org/abs/1903.10520, eq. 5; Kolesnikov et al., Big Transfer (BiT), 2019.
        https://arxiv.org/abs/1912.11370
    """

    def __init__(
        self, filters: int, kernel_size: int | tuple[int, ...], *, epsilon: float = 1e-6, **kwargs: Any
    ) -> None:
        super().__init__(filters, kernel_size, **kwargs)
        self.epsilon = positive(owner_of(self), "epsilon", epsilon)

    def standardized(self, kernel: Any) -> Any:
        """Returns `(w - mean(w)) / sqrt(var(w) + epsilon)` of each filter."""
        weights, axes = centred(kernel)
        variance: Any = ops.mean(ops.square(weights), axis=axes, keepdims=True)
        return ops.cast(weights * ops.rsqrt(variance + self.epsilon), kernel.dtype)
