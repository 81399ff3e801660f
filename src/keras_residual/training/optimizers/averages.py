"""A running mean of the weights beside the weights: the exponential moving average that recipes evaluate and keep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from keras_residual._arguments import share, whole_number
from keras_residual.residual.serialization import register
from keras_residual.training.optimizers.around import Around, put_together

ops: Any = keras.ops  # which Keras annotates as if they might return nothing


@register
class Averaged(Around):
    """Another optimizer, and after its step t the mean `a = d * a + (1 - d) * w`, `d = min(decay, (1 + t) / (10 + t))`.

    t counts from 0 and the first mean is the weights themselves, so that a short training has a mean too. The weights
    go on as if there were none, until `averaged(model)` puts the means in their place; `use_ema` of Keras does so at
    the end of each `fit`. The means are variables of the optimizer, saved and loaded with it. What layers count for
    themselves, such as a batch norm's moving statistics, stays that of the weights.

    Args:
        inner_optimizer: What changes the weights. It is told the rate, decay, clipping and accumulation of gradients.
        decay: Share of the mean that is kept at each step, in `[0, 1)`.
        every: Steps of the inner optimizer from one mean to the next, 1 or more; `decay` is that of a mean.
        name: Name of the optimizer.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> Averaged(keras.optimizers.SGD(0.1), decay=0.999).inner_optimizer.name
        'SGD'

    Reference:
        Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992.
    """

    def __init__(
        self, inner_optimizer: keras.Optimizer, decay: float = 0.9999, every: int = 1, name: str = "averaged"
    ) -> None:
        super().__init__(inner_optimizer, name)
        self.decay, self.every = share("Averaged", "decay", decay), whole_number("Averaged", "every", every)

    def build(self, variables: Any) -> None:
        """Makes the state of each weight."""
        if self.built:
            return
        super().build(variables)
        self.averages = self.add_optimizer_variables(variables, "average")

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal optimizer."""
        return super().get_config() | {"decay": self.decay, "every": self.every}

    def _apply(self, grads: Any, trainable_variables: Any) -> None:
        """Has the inner optimizer take its step, then takes the mean."""
        self.inner_optimizer.apply(grads, trainable_variables)
        # Gradients that are summed up first are no steps.
        between = self.every * put_together(self.inner_optimizer)
        done: Any = self._iterations + 1
        due = ops.equal(ops.mod(done, between), 0)
        before = ops.cast(ops.floor_divide(done, between), "float32") - 1
        decay = ops.minimum(self.decay, (1 + before) / (10 + before))
        kept = ops.where(due, ops.where(before > 0, decay, 0.0), 1.0)
        for average, variable in zip(self.averages, self._trainable_variables, strict=True):
            weight = ops.cast(kept, average.dtype)
            average.assign(weight * average + (1 - weight) * variable)


@contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """Within it the trainable weights of a model are their means, if its optimizer is `Averaged` and has taken a step.

    Args:
        model: A compiled model.

    Example:
        >>> with averaged(model):                                                       # doctest: +SKIP
        ...     model.save("model.keras")
    """
    pairs = _pairs(model)
    # Copies: a backend may lend the memory of a variable, and JAX gives away that of a weight in the next step.
    weights = [np.array(ops.convert_to_numpy(variable.value)) for variable, _ in pairs]
    means = [np.array(ops.convert_to_numpy(average.value)) for _, average in pairs]
    for (variable, _), mean in zip(pairs, means, strict=True):
        variable.assign(mean)
    try:
        yield
    finally:
        for (variable, _), weight in zip(pairs, weights, strict=True):
            variable.assign(weight)


class EvaluateAverages(keras.callbacks.Callback):
    """Has `fit` validate, and `evaluate` evaluate, the means of the weights; for a model compiled with `Averaged`."""

    def __init__(self) -> None:
        super().__init__()
        self._within: Any = None

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the means in the place of the weights."""
        model: Any = self.model
        self._within = averaged(model)
        self._within.__enter__()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the weights back."""
        self._within.__exit__(None, None, None)


def _pairs(model: keras.Model) -> list[tuple[Any, Any]]:
    """Returns the trained variables of a model, each with its mean; none where there are no means yet."""
    optimizer: Any = getattr(model, "optimizer", None)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    if not isinstance(optimizer, Averaged) or not optimizer.built:
        return []
    between = put_together(optimizer.inner_optimizer) * optimizer.every
    if int(ops.convert_to_numpy(optimizer._iterations.value)) < between:
        return []
    return list(zip(optimizer._trainable_variables, optimizer.averages, strict=True))
