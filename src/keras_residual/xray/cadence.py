"""When during training an X-ray is taken: after so many steps, each epoch, or as often as its share of time allows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from keras_residual._errors import bad_argument

CLOSEST = 0.05
"""Least distance of two X-rays with the cadence `"auto"`, as a part of the steps so far."""


class Clock:
    """Seconds of a training, those of its X-rays apart.

    Args:
        now: Returns the time in seconds.
        usual: Seconds that an X-ray takes, where it is known from before.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter, usual: float = 0.0) -> None:
        self.now = now
        self.started = now()
        self.spent = 0.0
        """Seconds that went into X-rays."""
        self.usual = usual
        """Seconds that one takes once it is compiled; 0 while nobody knows."""

    @property
    def trained(self) -> float:
        """Seconds that went into all else."""
        return self.now() - self.started - self.spent


class Cadence(Protocol):
    """Says whether an X-ray is taken behind the steps that come next."""

    @property
    def by_epoch(self) -> bool:
        """Whether one is taken at the end of each epoch."""
        ...

    def wanted(self, first: int, after: int, last: int, clock: Clock) -> bool:
        """Returns whether one is taken once the steps that come next are done.

        Args:
            first: Number of steps that are done.
            after: Number of steps that are done then.
            last: That of the last X-ray.
            clock: What training and X-rays have taken.
        """
        ...


@dataclass(frozen=True)
class EveryEpoch:
    """After each epoch, which no number of steps tells."""

    by_epoch = True

    def wanted(self, first: int, after: int, last: int, clock: Clock) -> bool:
        """Returns False."""
        return False


@dataclass(frozen=True)
class EverySteps:
    """After every so many steps.

    Args:
        steps: 1 or more.
    """

    steps: int
    by_epoch = False

    def wanted(self, first: int, after: int, last: int, clock: Clock) -> bool:
        """Returns whether the steps that come next reach or pass a multiple."""
        return after // self.steps > first // self.steps


@dataclass(frozen=True)
class ShareOfTime:
    """As often as the share of the X-rays in the time allows, the first of which compiles as well.

    There is always enough left for one at the end. In a long training they become rarer, so that their number grows as
    the logarithm of the steps.

    Args:
        most: Seconds of X-rays for each second of training.
    """

    most: float
    by_epoch = False

    def wanted(self, first: int, after: int, last: int, clock: Clock) -> bool:
        """Returns whether there is time for one, and for one more."""
        return after >= (1 + CLOSEST) * last and clock.spent + 2 * clock.usual <= self.most * clock.trained


def cadence_of(every: Any, most_cost: float) -> Cadence:
    """Returns the cadence that `XrayCallback` is told by its arguments."""
    if not isinstance(most_cost, (int, float)) or not most_cost > 0:
        raise bad_argument("XrayCallback", "most_cost", "a number above 0", most_cost)
    if every == "auto":
        return ShareOfTime(most_cost)
    if every == "epoch":
        return EveryEpoch()
    if isinstance(every, int) and not isinstance(every, bool) and every >= 1:
        return EverySteps(every)
    raise bad_argument("XrayCallback", "every", "'auto', 'epoch', or a number of steps of 1 or more", every)
