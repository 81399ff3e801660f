"""Stochastic depth: drops the branch of a residual connection at random while training."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_residual._arguments import choice, owner_of, share
from keras_residual.residual.scales import ShapePreserving
from keras_residual.residual.serialization import register

MODES = ("row", "batch")


@register
class DropPath(ShapePreserving):
    """Sets its input to 0 with probability `rate` while training, and divides it by `1 - rate` otherwise.

    The mean over the draws is the input, so nothing is rescaled at inference, where the layer does nothing.

    Args:
        rate: Probability of a drop, in `[0, 1)`; 0 makes the layer do nothing.
        mode: `"row"` draws once for each sample, `"batch"` once for all samples.
        seed: Integer that makes the draws reproducible, or `None`.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.

    Call arguments:
        inputs: Tensor of shape `(batch, ...)`.
        training: Whether to drop.

    Output shape:
        The shape of the input.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from keras_residual.residual.drop_path import DropPath
        >>> y = DropPath(0.5)(np.ones((1, 1)))
        >>> print(keras.ops.convert_to_numpy(y).round(3))
        [[1.]]

    Reference:
        Huang et al., Deep Networks with Stochastic Depth, 2016. https://arxiv.org/abs/1603.09382. There the branch is
        multiplied by `1 - rate` at inference; here it is divided while training, which gives the same mean.
    """

    def __init__(self, rate: float, mode: str = "row", seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = share(owner_of(self), "rate", rate)
        self.mode = choice(owner_of(self), "mode", mode, MODES)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Drops."""
        return self.drop(inputs, self.rate) if training else inputs

    def drop(self, inputs: Any, rate: Any) -> Any:
        """Drops at another rate than the layer's own, a number or a scalar tensor, as if in training."""
        if isinstance(rate, float):
            if rate == 0:
                return inputs
            kept = inputs / (1 - rate)
        else:
            kept = inputs / ops.cast(1 - rate, inputs.dtype)
        draw = keras.random.uniform(draw_shape(inputs, self.mode), dtype="float32", seed=self.seed_generator)
        # `where` rather than a product: a dropped branch that overflowed must not leave 0 * inf = nan.
        return ops.where(draw >= rate, kept, ops.zeros_like(inputs))


def draw_shape(inputs: Any, mode: str) -> tuple[Any, ...]:
    """Returns the shape of one draw a sample (`"row"`) or one in all (`"batch"`), of the rank of `inputs`."""
    ones = (1,) * (len(inputs.shape) - 1)
    sizes: Any = ops.shape(inputs)
    return (sizes[0] if mode == "row" else 1, *ones)
