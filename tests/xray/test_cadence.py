"""When an X-ray is taken, with a clock that the test moves."""

from __future__ import annotations

import re

import pytest

from keras_residual.xray.cadence import Clock, EveryEpoch, EverySteps, ShareOfTime, cadence_of

pytestmark = pytest.mark.any_backend


class Watch:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def training(
    cadence: ShareOfTime, *, steps: int, step: float, xray: float, compiling: float
) -> tuple[list[int], float]:
    """Returns at which steps X-rays are taken, and the slowdown, as `XrayCallback` does it."""
    watch = Watch()
    clock = Clock(watch)
    taken = [0]
    watch.time += compiling
    clock.spent += compiling
    for done in range(steps):
        wanted = cadence.wanted(done, done + 1, taken[-1], clock)
        watch.time += step
        if wanted:
            watch.time += xray
            clock.spent += xray
            clock.usual = xray
            taken.append(done + 1)
    if taken[-1] != steps:
        watch.time += xray
        clock.spent += xray
        taken.append(steps)
    assert clock.trained == pytest.approx(steps * step)
    return taken, clock.spent / clock.trained


@pytest.mark.parametrize("xray", [0.5, 3.0, 40.0])
def test_the_share_of_the_time_stays_under_the_bound(xray: float) -> None:
    taken, slowdown = training(ShareOfTime(0.05), steps=20_000, step=1.0, xray=xray, compiling=10 * xray)
    assert len(taken) > 5
    assert slowdown <= 0.05
    assert slowdown > 0.04 or xray < 40, "where there are few, what may be spent is spent"


def test_a_short_training_has_the_first_and_the_last_only() -> None:
    taken, _ = training(ShareOfTime(0.05), steps=100, step=1.0, xray=3.0, compiling=30.0)
    assert taken == [0, 100]


def test_their_number_grows_as_the_logarithm_of_the_steps() -> None:
    few, _ = training(ShareOfTime(0.05), steps=10_000, step=1.0, xray=0.01, compiling=0.01)
    many, _ = training(ShareOfTime(0.05), steps=100_000, step=1.0, xray=0.01, compiling=0.01)
    per_factor_of_ten = 2.302585 / 0.048790
    assert len(many) - len(few) == pytest.approx(per_factor_of_ten, rel=0.05)


def test_more_may_be_spent() -> None:
    few, _ = training(ShareOfTime(0.05), steps=2_000, step=1.0, xray=3.0, compiling=10.0)
    many, slowdown = training(ShareOfTime(0.5), steps=2_000, step=1.0, xray=3.0, compiling=10.0)
    assert len(many) > 2 * len(few)
    assert slowdown <= 0.5


@pytest.mark.parametrize(
    ("first", "after", "wanted"), [(0, 1, False), (8, 9, False), (9, 10, True), (10, 11, False), (5, 25, True)]
)
def test_a_number_of_steps_is_reached_or_passed(first: int, after: int, wanted: bool) -> None:
    assert EverySteps(10).wanted(first, after, 0, Clock()) is wanted


def test_names_and_numbers() -> None:
    assert cadence_of("auto", 0.1) == ShareOfTime(0.1)
    assert cadence_of("epoch", 0.1) == EveryEpoch()
    assert cadence_of(7, 0.1) == EverySteps(7)
    assert EveryEpoch().by_epoch


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "batch", None])
def test_other_cadences_are_refused(every: object) -> None:
    message = (
        "XrayCallback: `every` must be 'auto', 'epoch', or a number of steps of 1 or more, "
        f"but received {every!r} ({type(every).__name__})."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        cadence_of(every, 0.05)


@pytest.mark.parametrize("most", [0, -0.1, float("nan"), "5%"])
def test_a_cost_that_is_none_is_refused(most: object) -> None:
    with pytest.raises(ValueError, match="`most_cost` must be a number above 0"):
        cadence_of("auto", most)  # pyright: ignore
