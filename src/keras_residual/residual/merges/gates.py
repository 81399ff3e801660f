"""Merges that weigh skip against branch with a gate computed from them."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_residual._arguments import flag, owner_of, positive
from keras_residual.residual.merges.base import channels_of
from keras_residual.residual.merges.gate_base import BiasedGateMerge
from keras_residual.residual.serialization import register
from keras_residual.residual.shapes import Shape


@register
class HighwayMerge(BiasedGateMerge):
    """The highway gate `y = T * branch + (1 - T) * skip` with `T = sigmoid(W_T skip + b_T)`.

    Each output lies between the skip and the branch. As `b_T` falls, `y` tends to the skip.

    Args:
        gate_bias: Start of `b_T`. At -2 `T` is about 0.12: most of the skip is carried.
        **kwargs: `kernel_initializer` (of `W_T`, `(channels, channels)`), `axis`, and what every Keras layer takes.

    Call arguments:
        inputs: `[skip, branch]`, two tensors of one shape `(batch, ..., channels)`.

    Output shape:
        The shape of the inputs.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from keras_residual.residual.merges.table import HighwayMerge
        >>> y = HighwayMerge()([np.zeros((1, 1)), np.ones((1, 1))])
        >>> print(keras.ops.convert_to_numpy(y).round(3))
        [[0.119]]

    Reference:
        Srivastava et al., Highway Networks, 2015. https://arxiv.org/abs/1505.00387, eq. 3
    """

    def __init__(self, *, gate_bias: float = -2.0, **kwargs: Any) -> None:
        super().__init__(gate_bias=gate_bias, **kwargs)

    def build_weights(self, shape: Shape) -> None:
        """Adds `W_T` and `b_T`."""
        self.transform_gate = self.dense("transform_gate", channels_of(shape), shape, bias=self.gate_bias)

    def merge(self, skip: Any, branch: Any) -> Any:
        """Returns the gated sum."""
        gate: Any = ops.sigmoid(self.transform_gate(skip))
        return gate * branch + (1 - gate) * skip


@register
class LerpMerge(BiasedGateMerge):
    """The learned interpolation `y = (1 - m) * branch + m * skip` with `m = sigmoid(W [skip; branch] + b)`.

    Each output lies between the skip and the branch. As `b` grows, `y` tends to the skip.

    Args:
        per_channel: Whether there is an `m` for each channel; by default there is one for each position.
        gate_bias: Start of `b`. At 0 skip and branch count alike on average.
        **kwargs: `kernel_initializer` (of `W`, `(2 channels, 1)` or `(2 channels, channels)`), `axis`, and what every
            Keras layer takes.

    Call arguments:
        inputs: `[skip, branch]`, two tensors of one shape `(batch, ..., channels)`.

    Output shape:
        The shape of the inputs.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from keras_residual.residual.merges.table import LerpMerge
        >>> y = LerpMerge(kernel_initializer="zeros")([np.zeros((1, 1)), np.ones((1, 1))])
        >>> print(keras.ops.convert_to_numpy(y).round(3))
        [[0.5]]

    Reference:
        Srivastava et al., Highway Networks, 2015. https://arxiv.org/abs/1505.00387; the gate on both inputs is that of
        `GatedResidual` in https://github.com/lucidrains/hyper-connections
    """

    def __init__(self, *, per_channel: bool = False, gate_bias: float = 0.0, **kwargs: Any) -> None:
        super().__init__(gate_bias=gate_bias, **kwargs)
        self.per_channel = flag(owner_of(self), "per_channel", per_channel)

    def build_weights(self, shape: Shape) -> None:
        """Adds `W` and `b`."""
        channels = channels_of(shape)
        units = channels if self.per_channel else 1
        self.mix = self.dense("mix", units, (*shape[:-1], 2 * channels), bias=self.gate_bias)

    def merge(self, skip: Any, branch: Any) -> Any:
        """Returns the interpolation."""
        mix: Any = ops.sigmoid(self.mix(ops.concatenate([skip, branch], axis=-1)))
        return (1 - mix) * branch + mix * skip


@register
class GRNMerge(BiasedGateMerge):
    """The gated add and norm of the temporal fusion transformer: `y = LayerNorm(skip + GLU(branch))`.

    `GLU(u) = sigmoid(W_4 u + b_4) * (W_5 u + b_5)`. As `b_4` falls, `y` tends to `LayerNorm(skip)`.

    Args:
        gate_bias: Start of `b_4`. At 0 the gate is half open.
        epsilon: Added to the variance in the norm; above 0.
        **kwargs: `kernel_initializer` (of `W_4` and `W_5`, `(channels, channels)`), `axis`, and what every Keras layer
            takes.

    Call arguments:
        inputs: `[skip, branch]`, two tensors of one shape `(batch, ..., channels)`.

    Output shape:
        The shape of the inputs.

    Example:
        >>> import numpy as np
        >>> from keras_residual.residual.merges.table import GRNMerge
        >>> tuple(GRNMerge()([np.zeros((2, 4)), np.ones((2, 4))]).shape)
        (2, 4)

    Reference:
        Lim et al., Temporal Fusion Transformers, 2019. https://arxiv.org/abs/1912.09363, eq. 2 and 5
    """

    def __init__(self, *, gate_bias: float = 0.0, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(gate_bias=gate_bias, **kwargs)
        self.epsilon = positive(owner_of(self), "epsilon", epsilon)

    def build_weights(self, shape: Shape) -> None:
        """Adds both dense layers and the norm."""
        self.gate = self.dense("gate", channels_of(shape), shape, bias=self.gate_bias)
        self.value = self.dense("value", channels_of(shape), shape, bias=0.0)
        # Keras computes this norm in float32 under the mixed policies.
        norm = keras.layers.LayerNormalization(epsilon=self.epsilon, dtype=self.dtype_policy, name="norm")
        self.norm = self._made("norm", norm)
        self.norm.build(shape)

    def merge(self, skip: Any, branch: Any) -> Any:
        """Returns the normalised gated sum."""
        return self.norm(skip + ops.sigmoid(self.gate(branch)) * self.value(branch))
