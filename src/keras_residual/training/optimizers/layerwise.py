"""LAMB and LARS: steps as long as the weight that they change asks for, as timm takes them.

The norms are those of one weight of one block, also where a scanned stack holds the weights of all blocks in one.
"""

from __future__ import annotations

import math
from typing import Any

import keras

from keras_residual._arguments import positive, share
from keras_residual.residual.serialization import register
from keras_residual.stacks.variables import rank_in_block
from keras_residual.training.optimizers.sgd import MomentumOptimizer, decay_of

ops: Any = keras.ops  # which Keras annotates as if they might return nothing


@register
class Lars(MomentumOptimizer):
    """SGD with a rate for each weight: `d = r * (g + weight_decay * w)`, then the momentum of `SGD`.

    `r = trust * |w| / (|g| + weight_decay * |w| + epsilon)`, and 1 where a norm is 0. Weights without decay, such as
    biases and norm parameters after `exclude_from_weight_decay`, have `d = g`.

    Args:
        learning_rate: A number or a schedule.
        momentum: Share of the running sum of steps that is kept, in `[0, 1)`.
        nesterov: Whether a step looks ahead along the sum; needs a momentum.
        weight_decay: 0 or more; where it is 0, nothing is scaled.
        trust: Above 0: how long a step is, relative to the weight.
        epsilon: Above 0: keeps the quotient finite.
        **options: Of `keras.Optimizer`.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> Lars(4.8, momentum=0.9, weight_decay=5e-5).trust
        0.001

    Reference:
        You et al., Large Batch Training of Convolutional Networks, 2017. https://arxiv.org/abs/1708.03888
    """

    by_block = True

    def __init__(
        self,
        learning_rate: Any = 1.0,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        epsilon: float = 1e-8,
        name: str = "lars",
        **options: Any,
    ) -> None:
        weight_decay = decay_of("Lars", weight_decay)
        super().__init__(learning_rate, momentum, nesterov, name=name, **options)
        self.trust, self.epsilon = positive("Lars", "trust", trust), positive("Lars", "epsilon", epsilon)
        self._coupled = weight_decay

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal optimizer."""
        return super().get_config() | {"weight_decay": self._coupled, "trust": self.trust, "epsilon": self.epsilon}

    def _direction(self, gradient: Any, variable: Any) -> Any:
        decay = self._coupled
        if not (decay and self._use_weight_decay(variable)):
            return gradient
        axes = _axes_in_block(self, variable)
        weight, slope = _norm(variable, axes), _norm(gradient, axes)
        ratio = _ratio(self.trust * weight, slope + decay * weight + self.epsilon, both=weight * slope)
        return ratio * (gradient + decay * variable)


@register
class Lamb(keras.Optimizer):
    """Adam with a rate for each weight: `u = m / (sqrt(v) + epsilon) + weight_decay * w`, `w = w - rate * r * u`.

    `m` and `v` are the means of gradients and of their squares, corrected for their start, and `r = |w| / |u|`, or 1
    where a norm is 0. Weights without decay, such as biases and norm parameters after `exclude_from_weight_decay`, have
    `r = 1`. All gradients together are first brought to a norm of at most `global_clipnorm`. In `keras.optimizers.Lamb`
    the decay is no part of `u`, every weight is scaled, and nothing is clipped.

    Args:
        learning_rate: A number or a schedule.
        beta_1: Share of the mean of gradients that is kept, in `[0, 1)`.
        beta_2: Share of the mean of squares that is kept, in `[0, 1)`.
        epsilon: Above 0: keeps the quotient finite.
        weight_decay: 0 or more; where it is 0, nothing is scaled.
        global_clipnorm: Largest norm of all gradients together, above 0; None for any.
        **options: Of `keras.Optimizer`.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> Lamb(5e-3, weight_decay=0.02).global_clipnorm
        1.0

    Reference:
        You et al., Large Batch Optimization for Deep Learning, 2020. https://arxiv.org/abs/1904.00962
        Wightman et al., ResNet strikes back, 2021. https://arxiv.org/abs/2110.00476
    """

    by_block = True

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        weight_decay: float = 0.01,
        global_clipnorm: float | None = 1.0,
        name: str = "lamb",
        **options: Any,
    ) -> None:
        weight_decay = decay_of("Lamb", weight_decay)
        super().__init__(learning_rate, global_clipnorm=global_clipnorm, name=name, **options)
        self.beta_1, self.beta_2 = share("Lamb", "beta_1", beta_1), share("Lamb", "beta_2", beta_2)
        self.epsilon = positive("Lamb", "epsilon", epsilon)
        self._coupled = weight_decay

    def build(self, variables: Any) -> None:
        """Makes the state of each weight."""
        if self.built:
            return
        super().build(variables)
        self._means, self._squares = self.add_optimizer_variables(variables, ["mean", "square"])

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Changes one weight by its gradient."""
        rate, gradient = ops.cast(learning_rate, variable.dtype), ops.cast(gradient, variable.dtype)
        index = self._get_variable_index(variable)
        mean, square = self._means[index], self._squares[index]
        self.assign(mean, self.beta_1 * mean + (1 - self.beta_1) * gradient)
        self.assign(square, self.beta_2 * square + (1 - self.beta_2) * ops.square(gradient))
        first, second = (ops.cast(self._begun(beta), variable.dtype) for beta in (self.beta_1, self.beta_2))
        step = mean / first / (ops.sqrt(square / second) + self.epsilon)
        if self._coupled and self._use_weight_decay(variable):
            step = step + self._coupled * variable
            axes = _axes_in_block(self, variable)
            weight, length = _norm(variable, axes), _norm(step, axes)
            step = step * _ratio(weight, length, both=weight * length)
        self.assign_sub(variable, rate * step)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal optimizer."""
        return super().get_config() | {
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "weight_decay": self._coupled,
        }

    def _begun(self, beta: float) -> Any:
        """Returns `1 - beta**t` of step t, from 1, without the digits that single precision loses near 1."""
        if not beta:
            return 1.0
        steps: Any = self.iterations
        return -ops.expm1(math.log(beta) * ops.cast(steps + 1, "float32"))


def _axes_in_block(optimizer: keras.Optimizer, variable: Any) -> tuple[int, ...]:
    """Returns the axes of a weight that lie in one block."""
    # On TensorFlow `variable` is one of its own, which knows no blocks.
    trained = optimizer._trainable_variables[optimizer._get_variable_index(variable)]
    rank = len(trained.shape)
    return tuple(range(rank - rank_in_block(trained), rank))


def _norm(array: Any, axes: tuple[int, ...]) -> Any:
    """Returns the Euclidean norm over some axes, which stay."""
    # One over no axes is not the sum over all of them.
    return ops.sqrt(ops.sum(ops.square(array), axis=axes, keepdims=True)) if axes else ops.abs(array)


def _ratio(numerator: Any, denominator: Any, *, both: Any) -> Any:
    """Returns the quotient, or 1 where `both` is 0."""
    known = both > 0
    return ops.where(known, numerator / ops.where(known, denominator, 1.0), 1.0)
