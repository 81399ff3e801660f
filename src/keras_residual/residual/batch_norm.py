"""Keras's batch normalisation, as one operation where the backend has one."""

from __future__ import annotations

from typing import Any

import keras

from keras_residual._backend import maps
from keras_residual.residual.serialization import register


@register
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` that PyTorch computes in one operation.

    Weights, arguments and numbers are those of Keras's layer; a file with the weights of one loads into the other.
    Keras's layer makes eight operations of it on PyTorch. With a mask, renormalisation or channels in another axis
    than 1 or the last this layer does so too, and on other backends it is Keras's.

    Args:
        **kwargs: What `keras.layers.BatchNormalization` takes.

    Call arguments:
        inputs: Tensor of rank 2 or more.
        training: Whether the statistics are those of the batch, and the moving ones follow.
        mask: Booleans of the shape of `inputs` without its last axis, where a position counts.

    Output shape:
        The shape of the input.

    Raises:
        ValueError: For what Keras's layer refuses.

    Example:
        >>> BatchNormalization(epsilon=1e-5)(np.ones((2, 4, 4, 8))).shape
        (2, 4, 4, 8)

    Reference:
        Ioffe & Szegedy, Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift,
        2015. https://arxiv.org/abs/1502.03167, algorithms 1 and 2
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalises `inputs`."""
        axis = -1 if self.axis == len(inputs.shape) - 1 else self.axis
        if not maps.HAS_BATCH_NORM or mask is not None or self.renorm or axis not in (1, -1):
            return super().call(inputs, training=training, mask=mask)
        arguments: dict[str, Any] = {"gamma": self.gamma, "beta": self.beta, "epsilon": self.epsilon, "axis": axis}
        if not (training and self.trainable):
            outputs = maps.normalized(inputs, self.moving_mean, self.moving_variance, **arguments)
        else:
            outputs, mean, variance = maps.normalized_by_batch(inputs, **arguments)
            pairs: Any = ((self.moving_mean, mean), (self.moving_variance, variance))
            for moving, value in pairs:
                before: Any = keras.ops.cast(moving, value.dtype)
                moving.assign(before * self.momentum + value * (1.0 - self.momentum))
        return keras.ops.cast(outputs, self.compute_dtype)
