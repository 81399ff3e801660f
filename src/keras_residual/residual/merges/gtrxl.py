"""The gates of the gated transformer-XL, from which its authors chose the recurrent unit."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_residual.residual.merges.base import channels_of
from keras_residual.residual.merges.gate_base import BiasedGateMerge, KernelMerge
from keras_residual.residual.serialization import register
from keras_residual.residual.shapes import Shape


@register
class InputGateMerge(KernelMerge):
    """GTrXL's input gate `y = sigmoid(W skip) * skip + branch`.

    Args:
        **kwargs: `kernel_initializer` (of `W`, `(channels, channels)`), `axis`, and what every Keras layer takes.

    Call arguments:
        inputs: `[skip, branch]`, two tensors of one shape `(batch, ..., channels)`.

    Output shape:
        The shape of the inputs.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from keras_residual.residual.merges.table import InputGateMerge
        >>> y = InputGateMerge(kernel_initializer="zeros")([np.ones((1, 1)), np.ones((1, 1))])
        >>> print(keras.ops.convert_to_numpy(y).round(3))
        [[1.5]]

    Reference:
        Parisotto et al., Stabilizing Transformers for Reinforcement Learning, 2019. https://arxiv.org/abs/1910.06764
    """

    def build_weights(self, shape: Shape) -> None:
        """Adds `W`."""
        self.input_gate = self.dense("input_gate", channels_of(shape), shape)

    def merge(self, skip: Any, branch: Any) -> Any:
        """Returns the gated sum."""
        return ops.sigmoid(self.input_gate(skip)) * skip + branch


@register
class OutputGateMerge(BiasedGateMerge):
    """GTrXL's output gate `y = skip + sigmoid(W skip - b) * branch`. As `b` grows, `y` tends to the skip.

    Args:
        gate_bias: Start of `b`. At 2 the gate is about 0.12.
        **kwargs: `kernel_initializer` (of `W`, `(channels, channels)`), `axis`, and what every Keras layer takes.

    Call arguments:
        inputs: `[skip, branch]`, two tensors of one shape `(batch, ..., channels)`.

    Output shape:
        The shape of the inputs.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from keras_residual.residual.merges.table import OutputGateMerge
        >>> y = OutputGateMerge(kernel_initializer="zeros", gate_bias=0)([np.ones((1, 1)), np.ones((1, 1))])
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

    def merge(self, skip: Any, branch: Any) -> Any:
        """Returns the gated sum."""
        return skip + ops.sigmoid(self.output_gate(skip) - self.bias) * branch


@register
class SigmoidTanhMerge(BiasedGateMerge):
    """GTrXL's sigmoid-tanh gate `y = skip + sigmoid(W branch - b) * tanh(U branch)`.

    Each output lies within 1 of the skip. As `b` grows, `y` tends to the skip.

    Args:
        gate_bias: Start of `b`. At 2 the gate is about 0.12.
        **kwargs: `kernel_initializer` (of `W` and `U`, `(channels, channels)`), `axis`, and what every Keras layer
            takes.

    Call arguments:
        inputs: `[skip, branch]`, two tensors of one shape `(batch, ..., channels)`.

    Output shape:
        The shape of the inputs.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from keras_residual.residual.merges.table import SigmoidTanhMerge
        >>> y = SigmoidTanhMerge(kernel_initializer="zeros")([np.ones((1, 1)), np.ones((1, 1))])
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

    def merge(self, skip: Any, branch: Any) -> Any:
        """Returns the gated sum."""
        return skip + ops.sigmoid(self.gate(branch) - self.bias) * ops.tanh(self.candidate(branch))


@register
class GRUMerge(BiasedGateMerge):
    """GTrXL's gated recurrent unit, with `x` the skip and `f` the branch.

    `r = sigmoid(W_r f + U_r x)`, `z = sigmoid(W_z f + U_z x - b_g)`, `h = tanh(W_g f + U_g (r * x))`,
    `y = (1 - z) * x + z * h`. As `b_g` grows, `y` tends to the skip.

    Args:
        gate_bias: Start of `b_g`. At 2 `z` is about 0.12.
        **kwargs: `kernel_initializer` (of the six kernels, each `(channels, channels)`), `axis`, and what every Keras
            layer takes.

    Call arguments:
        inputs: `[skip, branch]`, two tensors of one shape `(batch, ..., channels)`.

    Output shape:
        The shape of the inputs.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from keras_residual.residual.merges.table import GRUMerge
        >>> y = GRUMerge(gate_bias=100)([np.full((1, 1), 3.0), np.ones((1, 1))])
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

    def merge(self, skip: Any, branch: Any) -> Any:
        """Returns the new state of the unit."""
        reset: Any = ops.sigmoid(self.reset_branch(branch) + self.reset_skip(skip))
        update: Any = ops.sigmoid(self.update_branch(branch) + self.update_skip(skip) - self.bias)
        candidate: Any = ops.tanh(self.candidate_branch(branch) + self.candidate_skip(reset * skip))
        return (1 - update) * skip + update * candidate
