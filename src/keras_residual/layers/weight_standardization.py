"""Convolutions whose kernel is standardized at each call: beside group norms, or scaled, instead of norms."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import keras
from keras import ops

from keras_residual._arguments import owner_of, positive
from keras_residual._types import Shape, Tensor
from keras_residual.residual.configured import Configured
from keras_residual.residual.merges.base import widen
from keras_residual.residual.serialization import register


class StandardizedConvolution(Configured):
    """A convolution that computes its kernel from its weights at each call. Abstract: a leaf gives `standardize`."""

    @abstractmethod
    def standardize(self, kernel: Tensor) -> Tensor:
        """Returns what to convolve with for weights of shape `(*sizes, channels in a group, filters)`."""
        raise NotImplementedError(f"{type(self).__name__} must define `standardize(kernel)`.")

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """Convolves with the standardized kernel."""
        convolution: Any = self
        return ops.conv(
            inputs,
            self.standardize(kernel),
            strides=convolution.strides,
            # Causal padding has been done by then.
            padding="valid" if convolution.padding == "causal" else convolution.padding,
            dilation_rate=convolution.dilation_rate,
            data_format=convolution.data_format,
        )


def center(kernel: Tensor) -> tuple[Any, tuple[int, ...]]:
    """Returns the weights of each filter minus their mean, and the axes of a filter."""
    # In float32 at least: sums over squares of half-precision weights are too coarse.
    weights: Any = widen(kernel)
    axes = tuple(range(len(kernel.shape) - 1))
    return weights - ops.mean(weights, axis=axes, keepdims=True), axes


@register
class WSConv2D(StandardizedConvolution, keras.layers.Conv2D):
    """A 2-D convolution with weight standardization, to be combined with group norms.

    The kernel it convolves with is `(w - mean(w)) / sqrt(var(w) + epsilon)`, with the mean and the variance of each
    filter's weights. It has no gain; `ScaledWSConv2D`, for networks without norms, has one.

    Args:
        filters: Number of filters.
        kernel_size: Size of the window: a number or a pair.
        epsilon: Added to the variance, above 0; 1e-8 in BiT.
        **kwargs: Arguments of `keras.layers.Conv2D`.

    Call arguments:
        inputs: Tensor of shape `(batch, height, width, channels)`, or channels first by `data_format`.

    Output shape:
        That of `keras.layers.Conv2D`.

    Raises:
        ValueError: For an `epsilon` that is not above 0.

    Example:
        >>> tuple(kr.layers.WSConv2D(8, 3, padding="same")(np.ones((1, 5, 5, 4))).shape)
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

    def standardize(self, kernel: Tensor) -> Tensor:
        """Returns `(w - mean(w)) / sqrt(var(w) + epsilon)` of each filter."""
        weights, axes = center(kernel)
        variance: Any = ops.mean(ops.square(weights), axis=axes, keepdims=True)
        return ops.cast(weights * ops.rsqrt(variance + self.epsilon), kernel.dtype)


RELU_GAMMA = math.sqrt(2 / (1 - 1 / math.pi))
"""1.71286: multiplied by it, the ReLU of a standard normal variable has variance 1. The authors' code has 1.71396."""


class ScaledWeightStandardization(StandardizedConvolution):
    """A convolution whose standardized kernel has a gain. Abstract.

        w_hat = gamma * gain * (w - mean(w)) / sqrt(max(fan_in * var(w), epsilon))

    Mean and variance are those of a filter's `fan_in` weights.
    """

    gamma: float
    epsilon: float

    def _set_standardization(self, gamma: Any, epsilon: Any) -> None:
        self.gamma = positive(owner_of(self), "gamma", gamma)
        self.epsilon = positive(owner_of(self), "epsilon", epsilon)

    def build(self, input_shape: Shape) -> None:
        """Adds a gain for each filter to the weights of the convolution."""
        super().build(input_shape)
        convolution: Any = self
        self.gain = self.add_weight(shape=convolution.kernel.shape[-1:], initializer="ones", name="gain")

    def standardize(self, kernel: Tensor) -> Tensor:
        """Returns `w_hat` for a kernel `w` of shape `(*sizes, channels in a group, filters)`."""
        weights, axes = center(kernel)
        size = ops.sum(ops.square(weights), axis=axes, keepdims=True)  # fan_in * var(w)
        gain: Any = ops.cast(self.gain, weights.dtype)
        scale = self.gamma * gain * ops.rsqrt(ops.maximum(size, self.epsilon))
        return ops.cast(weights * scale, kernel.dtype)

    def save_own_variables(self, store: Any) -> None:
        """Saves the gain as well: Keras's convolutions save a kernel and a bias only."""
        super().save_own_variables(store)
        if self.built:
            store["gain"] = self.gain

    def load_own_variables(self, store: Any) -> None:
        """Loads what was saved."""
        super().load_own_variables(store)
        if self.built:
            self.gain.assign(store["gain"])


@register
class ScaledWSConv1D(ScaledWeightStandardization, keras.layers.Conv1D):
    """A 1-D convolution with scaled weight standardization, for networks without norms.

    The kernel it convolves with is `gamma * gain * (w - mean(w)) / sqrt(fan_in * var(w))`, for each filter, with a
    learnable `gain` that starts at 1. If the input is the ReLU of a signal of unit variance, the output has unit
    variance and, over the channels, mean 0.

    Args:
        filters: Number of filters.
        kernel_size: Size of the window: a number.
        gamma: Factor above 0 that compensates for the activation before the convolution: 1.71286 for a ReLU, 1.70150
            for a GELU, 1.78813 for a SiLU, 1 for none.
        epsilon: Least `fan_in * var(w)`, above 0, so that equal weights are not divided by 0.
        **kwargs: Arguments of `keras.layers.Conv1D`.

    Call arguments:
        inputs: Tensor of shape `(batch, time, channels)`, or channels first by `data_format`.

    Output shape:
        That of `keras.layers.Conv1D`.

    Raises:
        ValueError: For a `gamma` or an `epsilon` that is not above 0.

    Example:
        >>> kr.ScaledWSConv1D(8, 3, padding="same")(np.ones((1, 5, 4))).shape
        (1, 5, 8)

    Reference:
        Brock et al., Characterizing Signal Propagation to Close the Performance Gap in Unnormalized ResNets, 2021.
        https://arxiv.org/abs/2101.08692, section 4.3
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int],
        *,
        gamma: float = RELU_GAMMA,
        epsilon: float = 1e-4,
        **kwargs: Any,
    ) -> None:
        super().__init__(filters, kernel_size, **kwargs)
        self._set_standardization(gamma, epsilon)

    def call(self, inputs: Tensor) -> Tensor:
        """Convolves with the standardized kernel."""
        # Unlike the others, Keras's Conv1D does not call `convolution_op`.
        padding: Any = self._compute_causal_padding() if self.padding == "causal" else None
        if padding is not None:
            inputs = ops.pad(inputs, padding)
        convolution: Any = super(keras.layers.Conv1D, self)
        return convolution.call(inputs)


@register
class ScaledWSConv2D(ScaledWeightStandardization, keras.layers.Conv2D):
    """A 2-D convolution with scaled weight standardization, for networks without norms.

    The kernel it convolves with is `gamma * gain * (w - mean(w)) / sqrt(fan_in * var(w))`, for each filter, with a
    learnable `gain` that starts at 1. If the input is the ReLU of a signal of unit variance, the output has unit
    variance and, over the channels, mean 0.

    Args:
        filters: Number of filters.
        kernel_size: Size of the window: a number or a pair.
        gamma: Factor above 0 that compensates for the activation before the convolution: 1.71286 for a ReLU, 1.70150
            for a GELU, 1.78813 for a SiLU, 1 for none.
        epsilon: Least `fan_in * var(w)`, above 0, so that equal weights are not divided by 0.
        **kwargs: Arguments of `keras.layers.Conv2D`.

    Call arguments:
        inputs: Tensor of shape `(batch, height, width, channels)`, or channels first by `data_format`.

    Output shape:
        That of `keras.layers.Conv2D`.

    Raises:
        ValueError: For a `gamma` or an `epsilon` that is not above 0.

    Example:
        >>> kr.ScaledWSConv2D(8, 3, padding="same")(np.ones((1, 5, 5, 4))).shape
        (1, 5, 5, 8)

    Reference:
        Brock et al., Characterizing Signal Propagation to Close the Performance Gap in Unnormalized ResNets, 2021.
        https://arxiv.org/abs/2101.08692, section 4.3
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        *,
        gamma: float = RELU_GAMMA,
        epsilon: float = 1e-4,
        **kwargs: Any,
    ) -> None:
        super().__init__(filters, kernel_size, **kwargs)
        self._set_standardization(gamma, epsilon)


@register
class ScaledWSConv3D(ScaledWeightStandardization, keras.layers.Conv3D):
    """A 3-D convolution with scaled weight standardization, for networks without norms.

    The kernel it convolves with is `gamma * gain * (w - mean(w)) / sqrt(fan_in * var(w))`, for each filter, with a
    learnable `gain` that starts at 1. If the input is the ReLU of a signal of unit variance, the output has unit
    variance and, over the channels, mean 0.

    Args:
        filters: Number of filters.
        kernel_size: Size of the window: a number or a triple.
        gamma: Factor above 0 that compensates for the activation before the convolution: 1.71286 for a ReLU, 1.70150
            for a GELU, 1.78813 for a SiLU, 1 for none.
        epsilon: Least `fan_in * var(w)`, above 0, so that equal weights are not divided by 0.
        **kwargs: Arguments of `keras.layers.Conv3D`.

    Call arguments:
        inputs: Tensor of shape `(batch, depth, height, width, channels)`, or channels first by `data_format`.

    Output shape:
        That of `keras.layers.Conv3D`.

    Raises:
        ValueError: For a `gamma` or an `epsilon` that is not above 0.

    Example:
        >>> kr.ScaledWSConv3D(8, 3, padding="same")(np.ones((1, 5, 5, 5, 4))).shape
        (1, 5, 5, 5, 8)

    Reference:
        Brock et al., Characterizing Signal Propagation to Close the Performance Gap in Unnormalized ResNets, 2021.
        https://arxiv.org/abs/2101.08692, section 4.3
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        *,
        gamma: float = RELU_GAMMA,
        epsilon: float = 1e-4,
        **kwargs: Any,
    ) -> None:
        super().__init__(filters, kernel_size, **kwargs)
        self._set_standardization(gamma, epsilon)
