"""Settings as values: equal as long as nothing of them has changed, and unequal afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from keras_residual.xray.measure.settings import settled

pytestmark = pytest.mark.any_backend


def within_itself() -> list[Any]:
    found: list[Any] = [1]
    found.append(found)
    return found


CHANGES: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = [
    (lambda: {"rate": [1, 2]}, lambda setting: setting["rate"].append(3)),
    (lambda: [1.0, {"a": 1}], lambda setting: setting[1].update(a=2)),
    (lambda: {"a", "b"}, lambda setting: setting.add("c")),
    (lambda: np.zeros((3, 2)), lambda setting: setting.__setitem__((1, 1), 1.0)),
    (lambda: [np.arange(3)[::-1]], lambda setting: setting[0].__setitem__(0, 7)),
    (lambda: np.array(["a", None], object), lambda setting: setting.__setitem__(0, "b")),
    (lambda: (object(), [1]), lambda setting: setting[1].append(2)),
    (within_itself, lambda setting: setting.append(2)),
]


@pytest.mark.parametrize(("make", "change"), CHANGES)
def test_a_change_within_is_seen(make: Callable[[], Any], change: Callable[[Any], Any]) -> None:
    setting = make()
    before = settled(setting)
    assert settled(setting) == before
    change(setting)
    assert settled(setting) != before


def test_the_type_and_the_shape_of_an_array_count() -> None:
    assert settled(np.zeros(4, "float32")) != settled(np.zeros(4, "int32"))
    assert settled(np.zeros(4)) != settled(np.zeros((2, 2)))
    assert settled(np.zeros(4)) == settled(np.zeros(4))


def test_other_objects_are_compared_by_what_they_are() -> None:
    one, other = object(), object()
    assert settled([one]) == settled([one])
    assert settled([one]) != settled([other])
