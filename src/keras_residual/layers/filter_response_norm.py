"""Filter response norm: each map by its own root mean square, and a learned threshold in place of a ReLU."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_residual._arguments import flag, owner_of, positive
from keras_residual.residual.maps import MapLayer
from keras_residual.residual.merges.base import widen
from keras_residual.residual.serialization import register
from keras_residual.residual.shapes import Shape


@register
class FilterResponseNorm(MapLayer):
    """Norm and activation in one: `y = max(gamma * x / sqrt(mean(x^2) + epsilon) + beta, tau)`.

    The mean is that of a sample's channel over all positions; no mean is subtracted. `gamma`, `beta` and `tau` have a
    number for each channel, which start at 1, 0 and 0. Statistics are computed in float32 at least.

    Args:
        epsilon: Added to the mean square, above 0.
        apply_threshold: Whether the result is at least `tau`, the thresholded linear unit; otherwise there is no `tau`.
        data_format: `"channels_last"`, `"channels_first"`, or None for `keras.config.image_data_format()`.
        **kwargs: `name`, `dtype` and `trainable`, as every Keras layer takes them.

    Call arguments:
        inputs: Tensor of shape `(batch, *sizes, channels)` with 1 to 3 sizes, or channels first by `data_format`.
        mask: Booleans of shape `(batch, *sizes)`: the mean square is over the positions where they are true.

    Output shape:
        The shape of the input.

    Raises:
        ValueError: For an `epsilon` that is not above 0, and for an input of another rank or of unknown channels.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from keras_residual.layers.filter_response_norm import FilterResponseNorm
        >>> y = FilterResponseNorm()(np.array([-1.0, 7.0]).reshape(1, 2, 1, 1))
        >>> print(keras.ops.convert_to_numpy(y).ravel().round(3))
        [0.  1.4]

    Reference:
        Singh & Krishnan, Filter Response Normalization Layer: Eliminating Batch Dependence in the Training of Deep
        Neural Networks, 2019. https://arxiv.org/abs/1911.09737, eq. 1 to 3. `epsilon` is a constant, and not learned as
        the paper has it for maps of one position.
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
        # Without autocast: they meet the statistics in float32.
        self.gamma = self.add_weight(shape=shape, initializer="ones", autocast=False, name="gamma")
        self.beta = self.add_weight(shape=shape, initializer="zeros", autocast=False, name="beta")
        self.tau = None
        if self.apply_threshold:
            self.tau = self.add_weight(shape=shape, initializer="zeros", autocast=False, name="tau")

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Normalises and cuts off."""
        mean_square: Any = self.mean(ops.square(widen(inputs)), mask)
        scale = ops.multiply(ops.cast(self.gamma, mean_square.dtype), ops.rsqrt(mean_square + self.epsilon))
        normalised = inputs * self.over_positions(scale, inputs) + self.over_positions(self.beta, inputs)
        return normalised if self.tau is None else ops.maximum(normalised, self.over_positions(self.tau, inputs))
