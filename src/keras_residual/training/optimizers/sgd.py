"""SGD with momentum as the papers on residual networks use it, and what it shares with LARS."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_residual._arguments import number, share
from keras_residual._errors import bad_argument
from keras_residual.residual.serialization import register


class MomentumOptimizer(keras.Optimizer):
    """Interface: steps along a running sum of what `_direction` makes of a gradient. `SGD` and `Lars` are the two.

    Args:
        learning_rate: A number or a schedule.
        momentum: Share of the running sum that is kept, in `[0, 1)`; 0 keeps no sum.
        nesterov: Whether a step looks ahead along the sum.
        **options: Of `keras.Optimizer`.
    """

    def __init__(self, learning_rate: Any, momentum: float, nesterov: bool, **options: Any) -> None:
        super().__init__(learning_rate, **options)
        momentum = share(type(self).__name__, "momentum", momentum)
        if nesterov and not momentum:
            raise bad_argument(type(self).__name__, "momentum", "above 0 where `nesterov` is true", momentum)
        self.momentum = momentum
        self.nesterov = nesterov

    def build(self, variables: Any) -> None:
        """Makes the state of each weight."""
        if self.built:
            return
        super().build(variables)
        self._momentums = self.add_optimizer_variables(variables, "momentum") if self.momentum else []

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Changes one weight by its gradient."""
        rate = ops.cast(learning_rate, variable.dtype)
        step = self._direction(ops.cast(gradient, variable.dtype), variable)
        if self.momentum:
            total = self._momentums[self._get_variable_index(variable)]
            self.assign(total, total * self.momentum + step)
            step = step + total * self.momentum if self.nesterov else total
        self.assign_sub(variable, rate * step)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal optimizer."""
        return super().get_config() | {"momentum": self.momentum, "nesterov": self.nesterov}

    def _direction(self, gradient: Any, variable: Any) -> Any:
        raise NotImplementedError


@register
class SGD(MomentumOptimizer):
    """Steps as `torch.optim.SGD`: `m = momentum * m + g + weight_decay * w`, then `w = w - learning_rate * m`.

    With `nesterov` it is `w = w - learning_rate * (g + weight_decay * w + momentum * m)`. `keras.optimizers.SGD` keeps
    the rate inside of `m`, so that after a drop of the rate it goes on for some steps at the old one; the published
    schedules were found with the form here.

    Args:
        learning_rate: A number or a schedule.
        momentum: Share of the running sum of gradients that is kept, in `[0, 1)`.
        nesterov: Whether a step looks ahead along the sum; needs a momentum.
        weight_decay: 0 or more, for all weights but those of `exclude_from_weight_decay`. Coupled, by default: part of
            the gradient, as an L2 penalty of `weight_decay / 2 * sum(w**2)`.
        decoupled: Whether the decay is apart from gradient and momentum, `w = w - learning_rate * weight_decay * w`
            before the step: SGDW.
        **options: Of `keras.Optimizer`: `clipnorm`, `global_clipnorm`, `gradient_accumulation_steps`, …

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> SGD(0.1, momentum=0.9, weight_decay=1e-4).weight_decay
        0.0001

    Reference:
        Sutskever et al., On the importance of initialization and momentum in deep learning, 2013. Loshchilov and
        Hutter, Decoupled Weight Decay Regularization, 2019. https://arxiv.org/abs/1711.05101
    """

    elementwise = True

    def __init__(
        self,
        learning_rate: Any = 0.1,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        name: str = "sgd",
        **options: Any,
    ) -> None:
        weight_decay = decay_of("SGD", weight_decay)
        super().__init__(
            learning_rate, momentum, nesterov, name=name, weight_decay=weight_decay if decoupled else None, **options
        )
        self.decoupled = decoupled
        self._coupled = 0.0 if decoupled else weight_decay

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal optimizer."""
        return super().get_config() | {
            "weight_decay": self.weight_decay if self.decoupled else self._coupled,
            "decoupled": self.decoupled,
        }

    def _direction(self, gradient: Any, variable: Any) -> Any:
        if self._coupled and self._use_weight_decay(variable):
            return gradient + self._coupled * variable
        return gradient


def decay_of(owner: str, weight_decay: Any) -> float:
    """Returns a weight decay as a float of 0 or more; raises as `number`."""
    return number(owner, "weight_decay", weight_decay, "a number of at least 0", lambda decay: decay >= 0)
