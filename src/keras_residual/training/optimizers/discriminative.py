"""Learning rates that differ from weight to weight: what fine-tuning has for the stages of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_residual._arguments import number
from keras_residual._errors import bad_argument
from keras_residual.residual.serialization import register
from keras_residual.training.optimizers.around import Around


@register
class Discriminative(Around):
    """Another optimizer, with a share of its learning rate for each weight: `w + s * (w' - w)`, `w'` after its step.

    For an optimizer whose step is in proportion to the rate, weight decay included, as of SGD, Adam, AdamW, LAMB and
    LARS, that is the rate `s * learning_rate`.

    Args:
        inner_optimizer: What changes the weights.
        shares: The share of each trainable weight, in `(0, 1]`, in the order of `model.trainable_variables`.
        name: Name of the optimizer.

    Raises:
        ValueError: If a share is out of its range; from `build`, if there are more or fewer shares than weights.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
        >>> Discriminative(kr.optimizers.SGD(0.1), [0.1, 0.1, 1.0, 1.0]).shares
        (0.1, 0.1, 1.0, 1.0)

    Reference:
        Howard and Ruder, Universal Language Model Fine-tuning for Text Classification, 2018, section 3.2.
        https://arxiv.org/abs/1801.06146
    """

    def __init__(self, inner_optimizer: keras.Optimizer, shares: Sequence[float], name: str = "discriminative") -> None:
        super().__init__(inner_optimizer, name)
        rule = "numbers in (0, 1]"
        self.shares = tuple(number("Discriminative", "shares", share, rule, lambda s: 0 < s <= 1) for share in shares)

    def build(self, variables: Any) -> None:
        """Makes the state of each weight."""
        if len(self.shares) != len(variables):
            rule = f"one number for each of {len(variables)} trainable weights"
            raise bad_argument("Discriminative", "shares", rule, f"{len(self.shares)} numbers")
        super().build(variables)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal optimizer."""
        return super().get_config() | {"shares": list(self.shares)}

    def _apply(self, grads: Any, trainable_variables: Any) -> None:
        slowed = [(v, s) for v, s in zip(self._trainable_variables, self.shares, strict=True) if s < 1]
        # A sum is a copy: of some backends the value is changed in place.
        before = [variable + 0.0 for variable, _ in slowed]
        self.inner_optimizer.apply(grads, trainable_variables)
        for (variable, share), old in zip(slowed, before, strict=True):
            variable.assign(old + share * (variable - old))
