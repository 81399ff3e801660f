"""Merges that add, average or concatenate skip and branch."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_residual._arguments import axis_in_rank, flag, number, owner_of
from keras_residual._types import Shape, Tensor
from keras_residual.residual.merges.base import Merge
from keras_residual.residual.serialization import register


@register
class AddMerge(Merge):
    """The sum `y = skip + branch`. No weights.

    Args:
        axis: The channel axis; the sum does not depend on it.
        **kwargs: `name`, `dtype` and `trainable`, as for every Keras layer.

    Call arguments:
        inputs: `[skip, branch]`, two tensors of one shape.

    Output shape:
        The shape of the inputs.

    Example:
        >>> y = kr.AddMerge()([np.ones((1, 1)), np.ones((1, 1))])
        >>> print(keras.ops.convert_to_numpy(y).round(3))
        [[2.]]

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2015. https://arxiv.org/abs/1512.03385, eq. 1
    """

    def merge(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Returns the sum."""
        return ops.add(skip, branch)


@register
class ConcatMerge(Merge):
    """The concatenation `y = [skip, branch]` along the channels: the skip is passed on bit for bit. No weights.

    Args:
        axis: The channel axis: -1, or 1 for `channels_first`.
        **kwargs: `name`, `dtype` and `trainable`, as for every Keras layer.

    Call arguments:
        inputs: `[skip, branch]`, tensors `(batch, ..., c)` and `(batch, ..., k)`, equal except for the channels.

    Output shape:
        `(batch, ..., c + k)`.

    Example:
        >>> tuple(kr.ConcatMerge()([np.zeros((2, 3)), np.ones((2, 4))]).shape)
        (2, 7)

    Reference:
        Huang et al., Densely Connected Convolutional Networks, 2016. https://arxiv.org/abs/1608.06993, eq. 2
    """

    needs_equal_shapes = False

    def merge(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Returns the concatenation."""
        return ops.concatenate([skip, branch], axis=axis_in_rank(owner_of(self), self.axis, len(skip.shape)))


@register
class MeanMerge(Merge):
    """The mean `y = (skip + branch) / 2`: equal inputs are returned unchanged. No weights.

    Args:
        axis: The channel axis; the mean does not depend on it.
        **kwargs: `name`, `dtype` and `trainable`, as for every Keras layer.

    Call arguments:
        inputs: `[skip, branch]`, two tensors of one shape.

    Output shape:
        The shape of the inputs.

    Example:
        >>> y = kr.MeanMerge()([np.zeros((1, 1)), np.ones((1, 1))])
        >>> print(keras.ops.convert_to_numpy(y).round(3))
        [[0.5]]

    Reference:
        Larsson et al., FractalNet, 2016. https://arxiv.org/abs/1605.07648, the join layer
    """

    def merge(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Returns the mean; each is halved first, so that the sum cannot overflow in float16."""
        return ops.add(0.5 * skip, 0.5 * branch)


@register
class WeightedMerge(Merge):
    """The weighted sum `y = a * skip + b * branch` with two learnable scalars.

    Args:
        softmax: If False, `a` and `b` are the weights, both initially 1: the plain sum. If True, `(a, b)` is the
            softmax of two logits, initially 0, so that always `a + b = 1`: LAuReL-RW.
        axis: The channel axis; the sum does not depend on it.
        **kwargs: `name`, `dtype` and `trainable`, as for every Keras layer.

    Call arguments:
        inputs: `[skip, branch]`, two tensors of one shape.

    Output shape:
        The shape of the inputs.

    Example:
        >>> y = kr.WeightedMerge(softmax=True)([np.zeros((1, 1)), np.ones((1, 1))])
        >>> print(keras.ops.convert_to_numpy(y).round(3))
        [[0.5]]

    Reference:
        Menghani et al., LAuReL: Learned Augmented Residual Layer, 2024. https://arxiv.org/abs/2411.07501
    """

    def __init__(self, *, softmax: bool = False, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(axis=axis, **kwargs)
        self.softmax = flag(owner_of(self), "softmax", softmax)

    def build_weights(self, shape: Shape) -> None:
        """Adds the pair of scalars."""
        del shape
        initializer = "zeros" if self.softmax else "ones"
        self.weighting = self.add_weight(shape=(2,), initializer=initializer, name="weighting")

    def merge(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Returns the weighted sum."""
        weights: Any = ops.softmax(self.weighting) if self.softmax else ops.convert_to_tensor(self.weighting)
        return weights[0] * skip + weights[1] * branch


@register
class MagnitudePreservingMerge(Merge):
    """The sum that keeps the variance: `y = ((1 - t) * skip + t * branch) / sqrt((1 - t)^2 + t^2)`. No weights.

    Uncorrelated inputs of variance 1 give an output of variance 1.

    Args:
        t: Share of the branch, in `[0, 1]`; 0 returns the skip, 1 the branch.
        axis: The channel axis; the sum does not depend on it.
        **kwargs: `name`, `dtype` and `trainable`, as for every Keras layer.

    Call arguments:
        inputs: `[skip, branch]`, two tensors of one shape.

    Output shape:
        The shape of the inputs.

    Example:
        >>> y = kr.MagnitudePreservingMerge(t=0.5)([np.ones((1, 1)), np.ones((1, 1))])
        >>> print(keras.ops.convert_to_numpy(y).round(3))
        [[1.414]]

    Reference:
        Karras et al., Analyzing and Improving the Training Dynamics of Diffusion Models, 2023.
        https://arxiv.org/abs/2312.02696, the magnitude-preserving sum
    """

    def __init__(self, *, t: float = 0.3, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(axis=axis, **kwargs)
        self.t = number(owner_of(self), "t", t, "a number in [0, 1]", lambda v: 0 <= v <= 1)

    def merge(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Returns the sum; both factors are computed in double precision."""
        norm = ((1 - self.t) ** 2 + self.t**2) ** 0.5
        return (1 - self.t) / norm * skip + self.t / norm * branch
