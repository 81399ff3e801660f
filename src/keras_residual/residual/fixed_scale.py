"""A factor that is stored among the weights and not trained."""

from __future__ import annotations

from typing import Any

from keras_residual.residual.scales import ShapePreserving
from keras_residual.residual.serialization import register
from keras_residual.residual.shapes import Shape


@register
class FixedScale(ShapePreserving):
    """A factor that is a weight, and is not trained: `y = c * x`, with `c = 1` at first.

    As a weight it can differ between the blocks of a stack, which `Scale` cannot.

    Args:
        **kwargs: `name` and `dtype`, as every Keras layer takes them.

    Call arguments:
        inputs: Tensor of any shape.

    Output shape:
        The shape of the input.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from keras_residual.residual.fixed_scale import FixedScale
        >>> scale = FixedScale()
        >>> scale.build((1, 1))
        >>> scale.set_weights([np.array(0.5)])
        >>> print(keras.ops.convert_to_numpy(scale(np.full((1, 1), 3.0))))
        [[1.5]]

    Reference:
        Sun et al., The Curse of Depth in Large Language Models, 2025. https://arxiv.org/abs/2502.05795
    """

    def build(self, input_shape: Shape) -> None:
        """Adds the factor."""
        del input_shape
        self.factor = self.add_weight(shape=(), initializer="ones", trainable=False, name="factor")

    def call(self, inputs: Any) -> Any:
        """Scales."""
        return inputs * self.factor
