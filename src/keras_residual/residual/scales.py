"""Factors and shifts on the branch or the skip path of a residual connection, and the names they go by."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import keras

from keras_residual._arguments import axis_in_rank, axis_index, number, owner_of
from keras_residual._errors import bad_argument
from keras_residual._types import Shape, Tensor
from keras_residual.residual.configured import ShapePreserving
from keras_residual.residual.serialization import register


@register
class SkipInit(ShapePreserving):
    """One learnable factor: `y = a * x`. With `init=0` (SkipInit, ReZero) the connection starts as the identity.

    Args:
        init: Initial value of `a`, a finite number.
        **kwargs: `name`, `dtype` and `trainable`, as for every Keras layer.

    Call arguments:
        inputs: Tensor of any shape.

    Output shape:
        The shape of the input.

    Example:
        >>> y = kr.SkipInit()(np.ones((1, 1)))
        >>> print(keras.ops.convert_to_numpy(y).round(3))
        [[0.]]

    Reference:
        De & Smith, Batch Normalization Biases Residual Blocks Towards the Identity Function in Deep Networks, 2020.
        https://arxiv.org/abs/2002.10444; Bachlechner et al., ReZero is All You Need, 2020.
        https://arxiv.org/abs/2003.04887
    """

    def __init__(self, init: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.init = number(owner_of(self), "init", init, "a finite number")

    def build(self, input_shape: Shape) -> None:
        """Adds the factor."""
        del input_shape
        self.factor = self.add_weight(shape=(), initializer=keras.initializers.Constant(self.init), name="factor")

    def call(self, inputs: Tensor) -> Tensor:
        """Multiplies by the learned factor."""
        return inputs * self.factor


@register
class LayerScale(ShapePreserving):
    """One learnable factor per channel: `y = g * x`.

    Args:
        init: Initial value of each factor, a finite number. CaiT uses 0.1 up to 18 blocks, 1e-5 up to 24, 1e-6 beyond.
        axis: The channel axis: -1, or 1 for `channels_first`.
        **kwargs: `name`, `dtype` and `trainable`, as for every Keras layer.

    Call arguments:
        inputs: Tensor of shape `(batch, ..., channels)`.

    Output shape:
        The shape of the input.

    Example:
        >>> y = kr.LayerScale(init=0.5)(np.ones((1, 1)))
        >>> print(keras.ops.convert_to_numpy(y).round(3))
        [[0.5]]

    Reference:
        Touvron et al., Going Deeper with Image Transformers, 2021. https://arxiv.org/abs/2103.17239, eq. 4
    """

    def __init__(self, init: float = 1e-5, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.init = number(owner_of(self), "init", init, "a finite number")
        self.axis = axis_index(owner_of(self), "axis", axis)

    def build(self, input_shape: Shape) -> None:
        """Adds the factors."""
        axis = axis_in_rank(owner_of(self), self.axis, len(input_shape))
        channels = input_shape[axis]
        if channels is None:
            raise bad_argument(owner_of(self), "inputs", "a tensor with a known number of channels", input_shape)
        initializer = keras.initializers.Constant(self.init)
        self.factor = self.add_weight(shape=(channels,), initializer=initializer, name="factor")

    def call(self, inputs: Tensor) -> Tensor:
        """Multiplies each channel by its factor."""
        behind = len(inputs.shape) - 1 - self.axis if self.axis > 0 else -self.axis - 1
        return inputs * keras.ops.reshape(self.factor, (-1, *[1] * behind))


@register
class Scale(ShapePreserving):
    """A constant factor: `y = value * x`. No weights.

    Args:
        value: The factor, a finite number.
        **kwargs: `name` and `dtype`, as for every Keras layer.

    Call arguments:
        inputs: Tensor of any shape.

    Output shape:
        The shape of the input.

    Example:
        >>> y = kr.Scale(0.25)(np.ones((1, 1)))
        >>> print(keras.ops.convert_to_numpy(y).round(3))
        [[0.25]]

    Reference:
        Szegedy et al., Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning, 2016.
        https://arxiv.org/abs/1602.07261, section 3.3
    """

    def __init__(self, value: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.value = number(owner_of(self), "value", value, "a finite number")

    def call(self, inputs: Tensor) -> Tensor:
        """Multiplies by the constant."""
        return inputs * self.value


@register
class ScalarBias(ShapePreserving):
    """One learnable shift for all elements: `y = x + b`. Fixup has one before each convolution and activation.

    Args:
        init: Initial value of `b`, a finite number.
        **kwargs: `name`, `dtype` and `trainable`, as for every Keras layer.

    Call arguments:
        inputs: Tensor of any shape.

    Output shape:
        The shape of the input.

    Example:
        >>> y = kr.ScalarBias(init=1.0)(np.ones((1, 1)))
        >>> print(keras.ops.convert_to_numpy(y).round(3))
        [[2.]]

    Reference:
        Zhang et al., Fixup Initialization: Residual Learning Without Normalization, 2019.
        https://arxiv.org/abs/1901.09321
    """

    def __init__(self, init: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.init = number(owner_of(self), "init", init, "a finite number")

    def build(self, input_shape: Shape) -> None:
        """Adds the shift."""
        del input_shape
        self.bias = self.add_weight(shape=(), initializer=keras.initializers.Constant(self.init), name="bias")

    def call(self, inputs: Tensor) -> Tensor:
        """Adds the shift."""
        return inputs + self.bias


@register
class FixupScale(ShapePreserving):
    """Fixup's end of a branch: `y = m * x + b`, with a learnable factor (initially 1) and shift (initially 0).

    Args:
        **kwargs: `name`, `dtype` and `trainable`, as for every Keras layer.

    Call arguments:
        inputs: Tensor of any shape.

    Output shape:
        The shape of the input.

    Example:
        >>> y = kr.FixupScale()(np.full((1, 1), 3.0))
        >>> print(keras.ops.convert_to_numpy(y).round(3))
        [[3.]]

    Reference:
        Zhang et al., Fixup Initialization: Residual Learning Without Normalization, 2019.
        https://arxiv.org/abs/1901.09321
    """

    def build(self, input_shape: Shape) -> None:
        """Adds the factor and the shift."""
        del input_shape
        self.factor = self.add_weight(shape=(), initializer="ones", name="factor")
        self.bias = self.add_weight(shape=(), initializer="zeros", name="bias")

    def call(self, inputs: Tensor) -> Tensor:
        """Multiplies by the factor and adds the shift."""
        return inputs * self.factor + self.bias


@register
class FixedScale(ShapePreserving):
    """A factor that is a weight but not trained: `y = c * x`, initially `c = 1`.

    Being a weight, it can differ between the blocks of a stack, unlike that of `Scale`.

    Args:
        **kwargs: `name` and `dtype`, as for every Keras layer.

    Call arguments:
        inputs: Tensor of any shape.

    Output shape:
        The shape of the input.

    Example:
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

    def call(self, inputs: Tensor) -> Tensor:
        """Multiplies by the factor."""
        return inputs * self.factor


SCALES: MappingProxyType[str, type[ShapePreserving]] = MappingProxyType(
    {"skip_init": SkipInit, "rezero": SkipInit, "layer_scale": LayerScale, "fixup": FixupScale}
)

NAMED_FACTORS: MappingProxyType[str, float] = MappingProxyType({"inverse_sqrt_2": 2**-0.5})
