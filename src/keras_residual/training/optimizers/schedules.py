"""Learning rates over the steps of a training: pieces that rise, fall or stay, put together as the papers do."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import keras

from keras_residual._arguments import choice, whole_number
from keras_residual._errors import bad_argument
from keras_residual.residual.serialization import register

ops: Any = keras.ops  # which Keras annotates as if they might return nothing

Curve = Literal["constant", "linear", "cosine"]


@register
class Piecewise(keras.optimizers.schedules.LearningRateSchedule):
    """A rate in pieces, each `(curve, end, rate)`: how it goes, the step at which it ends, the rate that it ends at.

    `"linear"` and `"cosine"` (half a wave, flat at both ends) go from where the piece before ended to `rate`;
    `"constant"` has `rate` from its first step on, as PyTorch's `MultiStepLR`. From the last end on the rate stays.

    Args:
        pieces: One or more, with ends that rise from above 0; they need not be whole numbers.
        start: Rate at step 0, where the first piece begins.
        every: Steps for which a rate is held, 1 or more: with those of an epoch it changes only from epoch to epoch.

    Raises:
        ValueError: If a curve is unknown or the ends do not rise.

    Example:
        >>> warm = Piecewise([("linear", 10, 0.1), ("cosine", 30, 0.0)])
        >>> [round(float(warm(step)), 3) for step in (0, 5, 10, 20, 30, 40)]
        [0.0, 0.05, 0.1, 0.05, 0.0, 0.0]

    Reference:
        Loshchilov and Hutter, SGDR, 2017 (cosine). https://arxiv.org/abs/1608.03983. Goyal et al., Accurate, Large
        Minibatch SGD, 2017 (warm-up). https://arxiv.org/abs/1706.02677
    """

    def __init__(self, pieces: Sequence[tuple[str, float, float]], start: float = 0.0, every: int = 1) -> None:
        pieces = [(curve, end, rate) for curve, end, rate in pieces]
        ends = [0, *(end for _, end, _ in pieces)]
        for curve, _, _ in pieces:
            choice("Piecewise", "pieces", curve, get_args(Curve))
        if len(ends) == 1 or any(end <= begin for begin, end in itertools.pairwise(ends)):
            raise bad_argument("Piecewise", "pieces", "one or more with ends that rise from above 0", ends[1:])
        self.pieces, self.start, self.every = pieces, start, whole_number("Piecewise", "every", every)

    def __call__(self, step: Any) -> Any:
        """Returns the rate at a step, which counts from 0."""
        if self.every > 1:
            step = ops.floor_divide(ops.cast(step, "int32"), self.every) * self.every
        step = ops.cast(step, "float32")
        begin, before = 0.0, self.start
        found = ops.full((), before, dtype="float32")
        for curve, end, rate in self.pieces:
            share = ops.clip((step - begin) / (end - begin), 0.0, 1.0)
            left = {"constant": 0.0 * share, "linear": 1 - share, "cosine": (1 + ops.cos(math.pi * share)) / 2}[curve]
            found = ops.where(step >= begin, rate + (before - rate) * left, found)
            begin, before = end, rate
        return found

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal schedule."""
        return {"pieces": [list(piece) for piece in self.pieces], "start": self.start, "every": self.every}


def cosine(rate: float, steps: float, *, warmup: float = 0, start: float = 0.0, every: int = 1) -> Piecewise:
    """Returns a schedule that rises linearly from `start * rate` over `warmup` steps, then falls along a cosine to 0.

    Args:
        rate: Highest rate.
        steps: Steps of the training, those of the warm-up among them.
        warmup: Steps in which the rate rises, fewer than `steps`.
        start: Share of `rate` to begin with.
        every: Steps for which a rate is held.
    """
    return _after_warmup([("cosine", steps, 0.0)], rate, warmup, start, every)


def linear(rate: float, steps: float, *, warmup: float = 0, start: float = 0.0, every: int = 1) -> Piecewise:
    """Returns a schedule that rises linearly, then falls linearly to 0; arguments as in `cosine`."""
    return _after_warmup([("linear", steps, 0.0)], rate, warmup, start, every)


def step_decay(
    rate: float,
    steps: float,
    milestones: Sequence[float],
    *,
    factor: float = 0.1,
    warmup: float = 0,
    start: float = 0.0,
    every: int = 1,
) -> Piecewise:
    """Returns a schedule that is multiplied by `factor` at each of `milestones`, which are steps; see `cosine`."""
    ends = [*milestones, max(steps, milestones[-1] + 1) if milestones else steps]
    pieces = [("constant", end, rate * factor**drops) for drops, end in enumerate(ends)]
    return _after_warmup(pieces, rate, warmup, start, every)


def one_cycle(
    rate: float, steps: float, *, warmup: float = 0, start: float = 0.04, end: float = 4e-6, every: int = 1
) -> Piecewise:
    """Returns a schedule that rises along a cosine from `start * rate`, then falls along one to `end * rate`.

    It is PyTorch's `OneCycleLR` with `pct_start=warmup / steps`: the highest rate is that of step `warmup - 1`, the
    lowest that of step `steps - 1`. Arguments as in `cosine`.

    Reference:
        Smith and Topin, Super-Convergence, 2018. https://arxiv.org/abs/1708.07120
    """
    fall: tuple[str, float, float] = ("cosine", max(steps - 1, warmup, 1), end * rate)
    if warmup <= 1:
        return Piecewise([fall], rate, every)
    return Piecewise([("cosine", warmup - 1, rate), fall], start * rate, every)


def _after_warmup(
    pieces: list[tuple[str, float, float]], rate: float, warmup: float, start: float, every: int
) -> Piecewise:
    if not warmup:
        return Piecewise(pieces, rate, every)
    # What would end before the warm-up does is left out: with a few epochs there may be no more to fall from.
    later = [piece for piece in pieces if piece[1] > warmup]
    return Piecewise([("linear", warmup, rate), *later], start * rate, every)
