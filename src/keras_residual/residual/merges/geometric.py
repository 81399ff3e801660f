"""Merges of skip and branch as vectors over the channels: projections, reflections, steps on the sphere."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_residual._arguments import number, owner_of, positive
from keras_residual._types import Shape, Tensor
from keras_residual.residual.merges.base import Merge, channels_of, widen
from keras_residual.residual.merges.gates import KernelMerge
from keras_residual.residual.serialization import register


@register
class OrthogonalMerge(Merge):
    """Adds only what is new: `y = x + f - <f, x> / (<x, x> + epsilon) * x`, with `x` the skip and `f` the branch.

    The inner products are over the channels, in float32 at least. `y - x` is orthogonal to `x`, so
    `||y||^2 = ||x||^2 + ||y - x||^2`. No weights.

    Args:
        epsilon: Keeps the quotient finite where the skip is 0; above 0.
        **kwargs: `axis`, and those of every Keras layer.

    Call arguments:
        inputs: `[skip, branch]`, two tensors of one shape `(batch, ..., channels)`.

    Output shape:
        The shape of the inputs.

    Example:
        >>> y = kr.OrthogonalMerge()([np.array([[2.0, 0.0]]), np.array([[1.0, 1.0]])])
        >>> print(keras.ops.convert_to_numpy(y).round(3))
        [[2. 1.]]

    Reference:
        Oh et al., Revisiting Residual Connections: Orthogonal Updates for Stable and Efficient Deep Networks, 2025.
        https://arxiv.org/abs/2505.11881
    """

    acts_on_channels = True

    def __init__(self, *, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = positive(owner_of(self), "epsilon", epsilon)

    def merge(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Returns the skip plus the part of the branch orthogonal to it."""
        x, f = widen(skip), widen(branch)
        along = _dot(f, x) / (_dot(x, x) + self.epsilon)
        return ops.cast(x + (f - along * x), skip.dtype)


@register
class DeltaMerge(KernelMerge):
    """Deep delta learning with a scalar value: `y = x + beta * (v - <k, x>) * k`, with `x` the skip.

    `k = branch / ||branch||`, `beta = 2 sigmoid(w_b x + b_b)` in `(0, 2)`, `v = w_v x + b_v`. The skip is carried
    by `I - beta k k^T`, whose eigenvalues are 1 and, once, `1 - beta`: the identity at `beta = 0`, the projection off
    `k` at 1, the reflection at 2. Norms and inner products are computed in float32 at least.

    Args:
        beta: Initial `beta` at a skip of 0, in `(0, 2)`.
        epsilon: Added to `||branch||^2`, so that a branch of 0 leaves the skip unchanged; above 0.
        **kwargs: `kernel_initializer` (of `w_b` and `w_v`, `(channels, 1)`), `axis`, and those of every Keras layer.

    Call arguments:
        inputs: `[skip, branch]`, two tensors of one shape `(batch, ..., channels)`.

    Output shape:
        The shape of the inputs.

    Example:
        >>> projection = kr.DeltaMerge(beta=1.0, kernel_initializer="zeros")
        >>> y = projection([np.array([[3.0, 4.0]]), np.array([[0.0, 2.0]])])
        >>> print(keras.ops.convert_to_numpy(y).round(3) + 0.0)
        [[3. 0.]]

    Reference:
        Zhang et al., Deep Delta Learning, 2026. https://arxiv.org/abs/2601.00417, the scalar value limit
    """

    def __init__(self, *, beta: float = 0.1, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.beta = number(owner_of(self), "beta", beta, "a number in (0, 2)", lambda v: 0 < v < 2)
        self.epsilon = positive(owner_of(self), "epsilon", epsilon)

    def build_weights(self, shape: Shape) -> None:
        """Adds the heads of `beta` and `v`."""
        self.beta_head = self.dense("beta", 1, shape, bias=math.log(self.beta / (2 - self.beta)))
        self.value_head = self.dense("value", 1, shape, bias=0.0)

    def merge(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Returns the skip, erased and rewritten along the direction of the branch."""
        x, f = widen(skip), widen(branch)
        k = f * ops.rsqrt(_dot(f, f) + self.epsilon)
        gate: Any = ops.sigmoid(widen(self.beta_head(skip)))
        return ops.cast(x + 2 * gate * (widen(self.value_head(skip)) - _dot(k, x)) * k, skip.dtype)


@register
class NormalizedLerpMerge(Merge):
    """A step on the sphere: `y = Norm(x + a * (Norm(f) - x))`, with `x` the skip and `f` the branch.

    `Norm` divides by the length over the channels, in float32 at least, so `||y|| = 1`. `a` is learnable,
    with one value per channel. With a skip of length 1, `a = 0` is the identity.

    Args:
        step: Initial value of `a`, a finite number; in the paper it is of the order of one over the depth.
        epsilon: Added to the squared lengths; above 0.
        **kwargs: `axis`, and those of every Keras layer.

    Call arguments:
        inputs: `[skip, branch]`, two tensors of one shape `(batch, ..., channels)`.

    Output shape:
        The shape of the inputs.

    Example:
        >>> y = kr.NormalizedLerpMerge(step=1.0)([np.array([[1.0, 0.0]]), np.array([[3.0, 4.0]])])
        >>> print(keras.ops.convert_to_numpy(y).round(3))
        [[0.6 0.8]]

    Reference:
        Loshchilov et al., nGPT: Normalized Transformer with Representation Learning on the Hypersphere, 2024.
        https://arxiv.org/abs/2410.01131, eq. 10 and 11
    """

    acts_on_channels = True

    def __init__(self, *, step: float = 0.05, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.step = number(owner_of(self), "step", step, "a finite number")
        self.epsilon = positive(owner_of(self), "epsilon", epsilon)

    def build_weights(self, shape: Shape) -> None:
        """Adds `a`."""
        initializer = keras.initializers.Constant(self.step)
        self.step_size = self.add_weight(shape=(channels_of(shape),), initializer=initializer, name="step_size")

    def merge(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Returns the normalized step from the skip towards the direction of the branch."""
        x, f = widen(skip), widen(branch)
        a = widen(ops.convert_to_tensor(self.step_size))
        return ops.cast(self._norm(x + a * (self._norm(f) - x)), skip.dtype)

    def _norm(self, x: Tensor) -> Any:
        return x * ops.rsqrt(_dot(x, x) + self.epsilon)


def _dot(a: Any, b: Any) -> Any:
    return ops.sum(a * b, axis=-1, keepdims=True)
