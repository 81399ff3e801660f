"""Convolutions whose kernel is standardised at each call: with group norms, or scaled, in place of norms."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import keras
from keras import ops

from keras_residual._arguments import owner_of, positive
from keras_residual.residual.configured import Configured
from keras_residual.residual.merges.base import widen
from keras_residual.residual.serialization import register
from keras_residual.residual.shapes import Shape


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
        >>> from keras_residual.layers.weight_standardization import WSConv2D
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


RELU_GAMMA = math.sqrt(2 / (1 - 1 / math.pi))
"""1.71286: times this, the ReLU of a standard normal variable has a variance of 1. The authors' code has 1.71396."""


class ScaledWeightStandardization(StandardizedConvolution):
    """What these convolutions share: a standardised kernel with a gain. Abstract.

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

    def standardized(self, kernel: Any) -> Any:
        """Returns `w_hat` for a kernel `w` of shape `(*sizes, channels in a group, filters)`."""
        weights, axes = centred(kernel)
        size = ops.sum(ops.square(weights), axis=axes, keepdims=True)  # fan_in * var(w)
        gain: Any = ops.cast(self.gain, weights.dtype)
        scale = self.gamma * gain * ops.rsqrt(ops.maximum(size, self.epsilon))
        return ops.cast(weights * scale, kernel.dtype)

    def save_own_variables(self, store: Any) -> None:
        """Saves the gain too: what Keras's convolutions save is a kernel and a bias."""
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
    """A 1-D convolution with scaled weight standardisation, for networks without norms.

    The kernel it convolves with is `gamma * gain * (w - mean(w)) / sqrt(fan_in * var(w))`, for each filter, with a
    learnable `gain` that starts at 1. Of an input that is the ReLU of something of unit variance, it makes something of
    unit variance and, over the channels, of mean 0.

    Args:
        filters: Number of filters.
        kernel_size: Size of the window: a number.
        gamma: Factor above 0 that makes up for the activation before the convolution: 1.71286 for a ReLU, 1.70150 for
            a GELU, 1.78813 for a SiLU, 1 for none.
        epsilon: Least `fan_in * var(w)`, above 0, so that equal weights are not divided by 0.
        **kwargs: What `keras.layers.Conv1D` takes.

    Call arguments:
        inputs: Tensor of shape `(batch, time, channels)`, or channels first by `data_format`.

    Output shape:
        That of `keras.layers.Conv1D`.

    Raises:
        ValueError: For a `gamma` or an `epsilon` that is not above 0.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from keras_residual.layers.weight_standardization import ScaledWSConv1D
        >>> ScaledWSConv1D(8, 3, padding="same")(np.ones((1, 5, 4))).shape
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

    def call(self, inputs: Any) -> Any:
        """Convolves."""
        # Keras's Conv1D goes another way than the others do, on which there is no `convolution_op`.
        padding: Any = self._compute_causal_padding() if self.padding == "causal" else None
        if padding is not None:
            inputs = ops.pad(inputs, padding)
        convolution: Any = super(keras.layers.Conv1D, self)
        return convolution.call(inputs)


@register
class ScaledWSConv2D(ScaledWeightStandardization, keras.layers.Conv2D):
    """A 2-D convolution with scaled weight standardisation, for networks without norms.

    The kernel it convolves with is `gamma * gain * (w - mean(w)) / sqrt(fan_in * var(w))`, for each filter, with a
    learnable `gain` that starts at 1. Of an input that is the ReLU of something of unit variance, it makes something of
    unit variance and, over the channels, of mean 0.

    Args:
        filters: Number of filters.
        kernel_size: Size of the window: a number or a pair.
        gamma: Factor above 0 that makes up for the activation before the convolution: 1.71286 for a ReLU, 1.70150 for
            a GELU, 1.78813 for a SiLU, 1 for none.
        epsilon: Least `fan_in * var(w)`, above 0, so that equal weights are not divided by 0.
        **kwargs: What `keras.layers.Conv2D` takes.

    Call arguments:
        inputs: Tensor of shape `(batch, height, width, channels)`, or channels first by `data_format`.

    Output shape:
        That of `keras.layers.Conv2D`.

    Raises:
        ValueError: For a `gamma` or an `epsilon` that is not above 0.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from keras_residual.layers.weight_standardization import ScaledWSConv2D
        >>> ScaledWSConv2D(8, 3, padding="same")(np.ones((1, 5, 5, 4))).shape
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
    """A 3-D convolution with scaled weight standardisation, for networks without norms.

    The kernel it convolves with is `gamma * gain * (w - mean(w)) / sqrt(fan_in * var(w))`, for each filter, with a
    learnable `gain` that starts at 1. Of an input that is the ReLU of something of unit variance, it makes something of
    unit variance and, over the channels, of mean 0.

    Args:
        filters: Number of filters.
        kernel_size: Size of the window: a number or a triple.
        gamma: Factor above 0 that makes up for the activation before the convolution: 1.71286 for a ReLU, 1.70150 for
            a GELU, 1.78813 for a SiLU, 1 for none.
        epsilon: Least `fan_in * var(w)`, above 0, so that equal weights are not divided by 0.
        **kwargs: What `keras.layers.Conv3D` takes.

    Call arguments:
        inputs: Tensor of shape `(batch, depth, height, width, channels)`, or channels first by `data_format`.

    Output shape:
        That of `keras.layers.Conv3D`.

    Raises:
        ValueError: For a `gamma` or an `epsilon` that is not above 0.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from keras_residual.layers.weight_standardization import ScaledWSConv3D
        >>> ScaledWSConv3D(8, 3, padding="same")(np.ones((1, 5, 5, 5, 4))).shape
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
