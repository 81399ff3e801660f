"""Norms and activations in one layer that do not depend on the batch: EvoNorm-S0 and filter response norm."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_residual._arguments import flag, owner_of, positive, whole_number
from keras_residual._errors import bad_argument
from keras_residual._types import Shape, Tensor
from keras_residual.layers.maps import MapLayer
from keras_residual.residual.merges.base import widen
from keras_residual.residual.serialization import register


@register
class EvoNormS0(MapLayer):
    """Norm and activation in one: `y = gamma * x * sigmoid(v * x) / sqrt(var(x) + epsilon) + beta`.

    The variance is that of a sample's group of channels over all positions, as in group norm. Without the activation
    there is no normalization either: `y = gamma * x + beta`. `gamma`, `beta` and `v` have one value per channel and
    start at 1, 0 and 1. Statistics are computed in float32 at least.

    Args:
        groups: Number of groups of neighboring channels; must divide the number of channels.
        epsilon: Added to the variance, above 0.
        apply_activation: Whether to activate; otherwise there is no `v`.
        data_format: `"channels_last"`, `"channels_first"`, or None for `keras.config.image_data_format()`.
        **kwargs: `name`, `dtype` and `trainable`, as for every Keras layer.

    Call arguments:
        inputs: Tensor of shape `(batch, *sizes, channels)` with 1 to 3 sizes, or channels first by `data_format`.
        mask: Booleans of shape `(batch, *sizes)`: the variance is taken over the positions where they are True.

    Output shape:
        The shape of the input.

    Raises:
        ValueError: For an argument out of range, channels that `groups` does not divide, and an input of another rank
            or of unknown channels.

    Example:
        >>> y = kr.layers.EvoNormS0(groups=1)(np.array([-1.0, 1.0]).reshape(1, 2, 1, 1))
        >>> print(keras.ops.convert_to_numpy(y).ravel().round(3))
        [-0.269  0.731]

    Reference:
        Liu et al., Evolving Normalization-Activation Layers, 2020. https://arxiv.org/abs/2004.02967, table 2
    """

    def __init__(
        self,
        groups: int = 32,
        *,
        epsilon: float = 1e-5,
        apply_activation: bool = True,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format=data_format, **kwargs)
        self.groups = whole_number(owner_of(self), "groups", groups)
        self.epsilon = positive(owner_of(self), "epsilon", epsilon)
        self.apply_activation = flag(owner_of(self), "apply_activation", apply_activation)

    def build(self, input_shape: Shape) -> None:
        """Adds `gamma`, `beta` and `v`."""
        channels = self.channels_of(input_shape)
        if self.apply_activation and channels % self.groups:
            raise bad_argument(owner_of(self), "groups", f"a divisor of the {channels} channels", self.groups)
        # Without autocast: they are combined with the statistics in float32.
        self.gamma = self.add_weight(shape=(channels,), initializer="ones", autocast=False, name="gamma")
        self.beta = self.add_weight(shape=(channels,), initializer="zeros", autocast=False, name="beta")
        self.v = None
        if self.apply_activation:
            self.v = self.add_weight(shape=(channels,), initializer="ones", autocast=False, name="v")

    def call(self, inputs: Tensor, mask: Any = None) -> Tensor:
        """Returns the normalized, activated inputs."""
        beta = self.over_positions(self.beta, inputs)
        if self.v is None:
            return inputs * self.over_positions(self.gamma, inputs) + beta
        activated = inputs * ops.sigmoid(inputs * self.over_positions(self.v, inputs))
        return activated * self.over_positions(self._scale(widen(inputs), mask), inputs) + beta

    def _scale(self, x: Tensor, mask: Any) -> Any:
        """Returns `gamma / sqrt(var(x) + epsilon)` of shape `(batch, channels)`."""
        mean: Any = self.mean(x, mask)
        variance: Any = self.mean(ops.square(x - self.over_positions(mean, x)), mask)
        # The moments of a group follow from those of its channels, so that no map is reshaped.
        in_groups = (-1, self.groups, mean.shape[-1] // self.groups)
        mean, variance = ops.reshape(mean, in_groups), ops.reshape(variance, in_groups)
        off: Any = mean - ops.mean(mean, axis=-1, keepdims=True)
        variance = ops.mean(variance + ops.square(off), axis=-1, keepdims=True)
        gamma: Any = ops.reshape(ops.cast(self.gamma, x.dtype), in_groups)
        return ops.reshape(gamma * ops.rsqrt(variance + self.epsilon), (-1, self.gamma.shape[0]))


@register
class FilterResponseNorm(MapLayer):
    """Norm and activation in one: `y = max(gamma * x / sqrt(mean(x^2) + epsilon) + beta, tau)`.

    The mean is that of a sample's channel over all positions; no mean is subtracted. `gamma`, `beta` and `tau` have one
    value per channel and start at 1, 0 and 0. Statistics are computed in float32 at least.

    Args:
        epsilon: Added to the mean square, above 0.
        apply_threshold: Whether to apply the thresholded linear unit `max(…, tau)`; otherwise there is no `tau`.
        data_format: `"channels_last"`, `"channels_first"`, or None for `keras.config.image_data_format()`.
        **kwargs: `name`, `dtype` and `trainable`, as for every Keras layer.

    Call arguments:
        inputs: Tensor of shape `(batch, *sizes, channels)` with 1 to 3 sizes, or channels first by `data_format`.
        mask: Booleans of shape `(batch, *sizes)`: the mean square is taken over the positions where they are True.

    Output shape:
        The shape of the input.

    Raises:
        ValueError: For an `epsilon` that is not above 0, and for an input of another rank or of unknown channels.

    Example:
        >>> y = kr.layers.FilterResponseNorm()(np.array([-1.0, 7.0]).reshape(1, 2, 1, 1))
        >>> print(keras.ops.convert_to_numpy(y).ravel().round(3))
        [0.  1.4]

    Reference:
        Singh & Krishnan, Filter Response Normalization Layer: Eliminating Batch Dependence in the Training of Deep
        Neural Networks, 2019. https://arxiv.org/abs/1911.09737, eq. 1 to 3. Here `epsilon` is constant; the paper
        learns it for maps of one position.
    """

    def __init__(
        self,
        *,
        epsilon: float = 1e-5,
        apply_threshold: bool = True,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format=data_format, **kwargs)
        self.epsilon = positive(owner_of(self), "epsilon", epsilon)
        self.apply_threshold = flag(owner_of(self), "apply_threshold", apply_threshold)

    def build(self, input_shape: Shape) -> None:
        """Adds `gamma`, `beta` and `tau`."""
        shape = (self.channels_of(input_shape),)
        # Without autocast: they are combined with the statistics in float32.
        self.gamma = self.add_weight(shape=shape, initializer="ones", autocast=False, name="gamma")
        self.beta = self.add_weight(shape=shape, initializer="zeros", autocast=False, name="beta")
        self.tau = None
        if self.apply_threshold:
            self.tau = self.add_weight(shape=shape, initializer="zeros", autocast=False, name="tau")

    def call(self, inputs: Tensor, mask: Any = None) -> Tensor:
        """Returns the normalized inputs, thresholded at `tau`."""
        mean_square: Any = self.mean(ops.square(widen(inputs)), mask)
        scale = ops.multiply(ops.cast(self.gamma, mean_square.dtype), ops.rsqrt(mean_square + self.epsilon))
        normalized = inputs * self.over_positions(scale, inputs) + self.over_positions(self.beta, inputs)
        return normalized if self.tau is None else ops.maximum(normalized, self.over_positions(self.tau, inputs))
