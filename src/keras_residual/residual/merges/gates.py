"""Merges that weigh skip against branch with a gate computed from them."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_residual._arguments import flag, number, owner_of, positive
from keras_residual._types import Shape, Tensor
from keras_residual.residual.merges.base import Merge, channels_of
from keras_residual.residual.serialization import register


class KernelMerge(Merge):
    """A merge with dense layers over the channels. Abstract.

    Args:
        kernel_initializer: Initializer of each kernel. With an integer seed, each further kernel uses the next one, so
            that no two are alike.
        **kwargs: `axis`, and those of every Keras layer.
    """

    acts_on_channels = True

    def __init__(self, *, kernel_initializer: Any = "glorot_uniform", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self._dense_layers = 0

    def dense(self, name: str, units: int, shape: Shape, *, bias: float | None = None) -> keras.layers.Dense:
        """Returns a built dense layer; `bias` is the initial value of its bias, or None for no bias."""
        bias_initializer: Any = keras.initializers.Constant(bias or 0.0)
        layer = keras.layers.Dense(
            units,
            use_bias=bias is not None,
            kernel_initializer=_distinct(self.kernel_initializer, self._dense_layers),
            bias_initializer=bias_initializer,
            dtype=self.dtype_policy,
            name=name,
        )
        layer = self._made(name, layer)
        layer.build(shape)
        self._dense_layers += 1
        return layer


class BiasedGateMerge(KernelMerge):
    """A merge whose gate has one bias per channel. Abstract.

    Args:
        gate_bias: Initial value of the bias; the subclass says which way it opens the gate.
        **kwargs: `kernel_initializer`, `axis`, and those of every Keras layer.
    """

    def __init__(self, *, gate_bias: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gate_bias = number(owner_of(self), "gate_bias", gate_bias, "a finite number")

    def subtracted_bias(self, shape: Shape) -> Any:
        """Returns a new bias per channel, for gates that subtract it."""
        initializer = keras.initializers.Constant(self.gate_bias)
        return self.add_weight(shape=(channels_of(shape),), initializer=initializer, name="gate_bias")


def _distinct(initializer: Any, index: int) -> Any:
    """Returns a copy of `initializer` for kernel number `index`: one instance would give equal values each time."""
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    config = initializer.get_config()
    if isinstance(config.get("seed"), int):
        config = {**config, "seed": config["seed"] + index}
    return type(initializer).from_config(config)


@register
class HighwayMerge(BiasedGateMerge):
    """The highway gate `y = T * branch + (1 - T) * skip` with `T = sigmoid(W_T skip + b_T)`.

    Each output lies between the skip and the branch. As `b_T` falls, `y` tends to the skip.

    Args:
        gate_bias: Initial value of `b_T`. At -2, `T` is about 0.12: most of the skip is carried.
        **kwargs: `kernel_initializer` (of `W_T`, `(channels, channels)`), `axis`, and those of every Keras layer.

    Call arguments:
        inputs: `[skip, branch]`, two tensors of one shape `(batch, ..., channels)`.

    Output shape:
        The shape of the inputs.

    Example:
        >>> y = kr.HighwayMerge()([np.zeros((1, 1)), np.ones((1, 1))])
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

    def merge(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Returns the gated sum."""
        gate: Any = ops.sigmoid(self.transform_gate(skip))
        return gate * branch + (1 - gate) * skip


@register
class LerpMerge(BiasedGateMerge):
    """The learned interpolation `y = (1 - m) * branch + m * skip` with `m = sigmoid(W [skip; branch] + b)`.

    Each output lies between the skip and the branch. As `b` grows, `y` tends to the skip.

    Args:
        per_channel: Whether `m` has one value per channel; by default it has one per position.
        gate_bias: Initial value of `b`. At 0, skip and branch have equal weight on average.
        **kwargs: `kernel_initializer` (of `W`, `(2 channels, 1)` or `(2 channels, channels)`), `axis`, and those of
            every Keras layer.

    Call arguments:
        inputs: `[skip, branch]`, two tensors of one shape `(batch, ..., channels)`.

    Output shape:
        The shape of the inputs.

    Example:
        >>> y = kr.LerpMerge(kernel_initializer="zeros")([np.zeros((1, 1)), np.ones((1, 1))])
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

    def merge(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Returns the interpolation."""
        mix: Any = ops.sigmoid(self.mix(ops.concatenate([skip, branch], axis=-1)))
        return (1 - mix) * branch + mix * skip


@register
class GRNMerge(BiasedGateMerge):
    """The gated add and norm of the temporal fusion transformer: `y = LayerNorm(skip + GLU(branch))`.

    `GLU(u) = sigmoid(W_4 u + b_4) * (W_5 u + b_5)`. As `b_4` falls, `y` tends to `LayerNorm(skip)`.

    Args:
        gate_bias: Initial value of `b_4`. At 0 the gate is half open.
        epsilon: Added to the variance in the norm; above 0.
        **kwargs: `kernel_initializer` (of `W_4` and `W_5`, `(channels, channels)`), `axis`, and those of every
            Keras layer.

    Call arguments:
        inputs: `[skip, branch]`, two tensors of one shape `(batch, ..., channels)`.

    Output shape:
        The shape of the inputs.

    Example:
        >>> tuple(kr.GRNMerge()([np.zeros((2, 4)), np.ones((2, 4))]).shape)
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

    def merge(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Returns the normalized gated sum."""
        return self.norm(skip + ops.sigmoid(self.gate(branch)) * self.value(branch))


@register
class InputGateMerge(KernelMerge):
    """GTrXL's input gate `y = sigmoid(W skip) * skip + branch`.

    Args:
        **kwargs: `kernel_initializer` (of `W`, `(channels, channels)`), `axis`, and those of every Keras layer.

    Call arguments:
        inputs: `[skip, branch]`, two tensors of one shape `(batch, ..., channels)`.

    Output shape:
        The shape of the inputs.

    Example:
        >>> y = kr.InputGateMerge(kernel_initializer="zeros")([np.ones((1, 1)), np.ones((1, 1))])
        >>> print(keras.ops.convert_to_numpy(y).round(3))
        [[1.5]]

    Reference:
        Parisotto et al., Stabilizing Transformers for Reinforcement Learning, 2019. https://arxiv.org/abs/1910.06764
    """

    def build_weights(self, shape: Shape) -> None:
        """Adds `W`."""
        self.input_gate = self.dense("input_gate", channels_of(shape), shape)

    def merge(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Returns the gated sum."""
        return ops.sigmoid(self.input_gate(skip)) * skip + branch


@register
class OutputGateMerge(BiasedGateMerge):
    """GTrXL's output gate `y = skip + sigmoid(W skip - b) * branch`. As `b` grows, `y` tends to the skip.

    Args:
        gate_bias: Initial value of `b`. At 2 the gate is about 0.12.
        **kwargs: `kernel_initializer` (of `W`, `(channels, channels)`), `axis`, and those of every Keras layer.

    Call arguments:
        inputs: `[skip, branch]`, two tensors of one shape `(batch, ..., channels)`.

    Output shape:
        The shape of the inputs.

    Example:
        >>> y = kr.OutputGateMerge(kernel_initializer="zeros", gate_bias=0)([np.ones((1, 1)), np.ones((1, 1))])
        >>> print(keras.ops.convert_to_numpy(y).round(3))
        [[1.5]]

    Reference:
        Parisotto et al., Stabilizing Transformers for Reinforcement Learning, 2019. https://arxiv.org/abs/1910.06764
    """

    def __init__(self, *, gate_bias: float = 2.0, **kwargs: Any) -> None:
        super().__init__(gate_bias=gate_bias, **kwargs)

    def build_weights(self, shape: Shape) -> None:
        """Adds `W` and `b`."""
        self.output_gate = self.dense("output_gate", channels_of(shape), shape)
        self.bias = self.subtracted_bias(shape)

    def merge(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Returns the gated sum."""
        return skip + ops.sigmoid(self.output_gate(skip) - self.bias) * branch


@register
class SigmoidTanhMerge(BiasedGateMerge):
    """GTrXL's sigmoid-tanh gate `y = skip + sigmoid(W branch - b) * tanh(U branch)`.

    Each output lies within 1 of the skip. As `b` grows, `y` tends to the skip.

    Args:
        gate_bias: Initial value of `b`. At 2 the gate is about 0.12.
        **kwargs: `kernel_initializer` (of `W` and `U`, `(channels, channels)`), `axis`, and those of every
            Keras layer.

    Call arguments:
        inputs: `[skip, branch]`, two tensors of one shape `(batch, ..., channels)`.

    Output shape:
        The shape of the inputs.

    Example:
        >>> y = kr.SigmoidTanhMerge(kernel_initializer="zeros")([np.ones((1, 1)), np.ones((1, 1))])
        >>> print(keras.ops.convert_to_numpy(y).round(3))
        [[1.]]

    Reference:
        Parisotto et al., Stabilizing Transformers for Reinforcement Learning, 2019. https://arxiv.org/abs/1910.06764
    """

    def __init__(self, *, gate_bias: float = 2.0, **kwargs: Any) -> None:
        super().__init__(gate_bias=gate_bias, **kwargs)

    def build_weights(self, shape: Shape) -> None:
        """Adds `W`, `U` and `b`."""
        self.gate = self.dense("gate", channels_of(shape), shape)
        self.candidate = self.dense("candidate", channels_of(shape), shape)
        self.bias = self.subtracted_bias(shape)

    def merge(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Returns the gated sum."""
        return skip + ops.sigmoid(self.gate(branch) - self.bias) * ops.tanh(self.candidate(branch))


@register
class GRUMerge(BiasedGateMerge):
    """GTrXL's gated recurrent unit, with `x` the skip and `f` the branch.

    `r = sigmoid(W_r f + U_r x)`, `z = sigmoid(W_z f + U_z x - b_g)`, `h = tanh(W_g f + U_g (r * x))`,
    `y = (1 - z) * x + z * h`. As `b_g` grows, `y` tends to the skip.

    Args:
        gate_bias: Initial value of `b_g`. At 2, `z` is about 0.12.
        **kwargs: `kernel_initializer` (of the six kernels, each `(channels, channels)`), `axis`, and what every Keras
            layer takes.

    Call arguments:
        inputs: `[skip, branch]`, two tensors of one shape `(batch, ..., channels)`.

    Output shape:
        The shape of the inputs.

    Example:
        >>> y = kr.GRUMerge(gate_bias=100)([np.full((1, 1), 3.0), np.ones((1, 1))])
        >>> print(keras.ops.convert_to_numpy(y).round(3))
        [[3.]]

    Reference:
        Parisotto et al., Stabilizing Transformers for Reinforcement Learning, 2019. https://arxiv.org/abs/1910.06764
    """

    def __init__(self, *, gate_bias: float = 2.0, **kwargs: Any) -> None:
        super().__init__(gate_bias=gate_bias, **kwargs)

    def build_weights(self, shape: Shape) -> None:
        """Adds the six kernels and `b_g`."""
        channels = channels_of(shape)
        self.reset_branch = self.dense("reset_branch", channels, shape)
        self.reset_skip = self.dense("reset_skip", channels, shape)
        self.update_branch = self.dense("update_branch", channels, shape)
        self.update_skip = self.dense("update_skip", channels, shape)
        self.candidate_branch = self.dense("candidate_branch", channels, shape)
        self.candidate_skip = self.dense("candidate_skip", channels, shape)
        self.bias = self.subtracted_bias(shape)

    def merge(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Returns the new state of the unit."""
        reset: Any = ops.sigmoid(self.reset_branch(branch) + self.reset_skip(skip))
        update: Any = ops.sigmoid(self.update_branch(branch) + self.update_skip(skip) - self.bias)
        candidate: Any = ops.tanh(self.candidate_branch(branch) + self.candidate_skip(reset * skip))
        return (1 - update) * skip + update * candidate
