from __future__ import annotations

import math

import pytest

from keras_residual.xray.page.numbers_in_words import number, plain, power_of_ten

pytestmark = pytest.mark.any_backend


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (0.03124, "0.0312"),
        (1019.9, "1020"),
        (3.1e-9, "3.1e-9"),
        (2e12, "2e+12"),
        (-0.5, "-0.5"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_shares_are_in_percent() -> None:
    assert (number(0.125, percent=True), number(1e-9, percent=True)) == ("12.5 %", "1e-7 %")


@pytest.mark.parametrize(("exponent", "text"), [(0, "1"), (-2, "0.01"), (3, "1000"), (-8, "10⁻⁸"), (12, "10¹²")])
def test_powers_of_ten_as_an_axis_has_them(exponent: int, text: str) -> None:
    assert power_of_ten(exponent) == text


def test_powers_of_ten_in_percent() -> None:
    assert (power_of_ten(-2, percent=True), power_of_ten(-7, percent=True)) == ("1 %", "10⁻⁵ %")


def test_what_json_lacks_becomes_text() -> None:
    assert plain({"a": [math.nan, math.inf, None, True, 3, 0.123456]}) == {
        "a": ["not a number", "infinite", None, True, 3, 0.1235]
    }
