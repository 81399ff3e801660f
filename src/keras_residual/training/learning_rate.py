"""A learning rate for a run, found by a short training in which it rises until the loss does too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_residual._errors import bad_argument
from keras_residual.training.figures import learning_rates
from keras_residual.training.making import compile_learner
from keras_residual.training.prepare import Prepared
from keras_residual.training.random_states import random_states, set_random_states

LOWEST, HIGHEST, STEPS, DIVERGED = 1e-7, 10.0, 100, 4.0
_KEPT = 0.98  # of the mean of losses, at each step
_FORGOTTEN = 0.1  # share of the steps at the beginning, before which nothing has been learned


@dataclass(frozen=True)
class LearningRates:
    """What was found.

    Args:
        rates: Learning rate of each step.
        losses: Its loss, as a running mean over the steps.
        suggestion: The rate that is suggested; None where the loss does not fall.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float | None

    def to_svg(self) -> str:
        """Returns the curve, with the suggestion."""
        return learning_rates(self.rates, self.losses, self.suggestion, name="rates")


def find_learning_rate(prepared: Prepared) -> LearningRates:
    """Trains for 100 steps with a rate that rises from 1e-7 to 10, and looks where the loss falls longest.

    It ends before where the loss is four times its lowest. The rate that is suggested lies halfway along the longest
    fall of the loss. The network has its weights and the process its random states
    afterwards, and nothing is written.

    Args:
        prepared: A run; with `prepare(...)` of its configuration.

    Raises:
        ValueError: If the run goes on, or the model is the caller's own.

    Reference:
        Smith, Cyclical Learning Rates for Training Neural Networks, 2017. https://arxiv.org/abs/1506.01186. The
        choice along the longest fall is that of fastai's `valley`.
    """
    if prepared.own is not None or prepared.state is not None:
        rule = "a new run of a model that the configuration names"
        raise bad_argument("find_learning_rate", "prepared", rule, prepared.config.model.name)
    config, dataset, assembled = prepared.config, prepared.dataset, prepared.assembled
    learner, classes = assembled.network, len(dataset.classes)
    weights, states = [np.array(value) for value in learner.get_weights()], random_states()
    plain = config.updated({"optimizer.schedule": "constant", "optimizer.warmup": 0.0, "optimizer.average": 0.0})
    compile_learner(learner, plain, classes=classes, epochs=1, steps_per_epoch=STEPS)
    optimizer: Any = learner.optimizer
    rising = keras.optimizers.schedules.ExponentialDecay(LOWEST, STEPS - 1, HIGHEST / LOWEST)
    optimizer.learning_rate = rising
    batches = prepared.batches(assembled.inputs(dataset.x_train), assembled.targets(dataset.y_train))
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    try:
        for step in range(STEPS):
            learner.reset_metrics()
            loss: Any = learner.train_on_batch(*batches.batch(step), return_dict=True)
            if not math.isfinite(float(loss["loss"])):
                break
            mean = _KEPT * mean + (1 - _KEPT) * float(loss["loss"])
            losses.append(mean / (1 - _KEPT ** (step + 1)))
            rates.append(LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1)))
            if losses[-1] > DIVERGED * min(losses):
                break
    finally:
        learner.set_weights(weights)
        set_random_states(states)
    begin = min(int(_FORGOTTEN * STEPS), len(rates))
    place = longest_fall(losses[begin:])
    return LearningRates(tuple(rates), tuple(losses), None if place is None else rates[begin + place])


def longest_fall(losses: Sequence[float]) -> int | None:
    """Returns the middle of the longest row of losses of which each is lower than the one before it, with gaps.

    None where they never fall.
    """
    length, before = [1] * len(losses), [-1] * len(losses)
    for i, loss in enumerate(losses):
        for j in range(i):
            if loss < losses[j] and length[i] < length[j] + 1:
                length[i], before[i] = length[j] + 1, j
    if not losses or max(length) == 1:
        return None
    end = start = length.index(max(length))
    while before[start] >= 0:
        start = before[start]
    return start + (end - start) // 2
