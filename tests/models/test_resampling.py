"""Sizes, crops and weights of resizing, against the rules as they stand in Pillow and in the reference transforms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from keras_residual.models.resampling import (
    crop_start,
    height_first,
    inside,
    resampling_matrix,
    resized_size,
    split_weights,
)

pytestmark = pytest.mark.any_backend


def pillow_weights(length: int, resized: int, support: float, kernel) -> np.ndarray:
    """Pillow's weights before they become whole numbers, one output pixel after the other."""
    matrix = np.zeros((resized, length))
    scale = length / resized
    stretch = max(scale, 1.0)
    for row in range(resized):
        center = (row + 0.5) * scale
        first = max(int(center - support * stretch + 0.5), 0)
        last = min(int(center + support * stretch + 0.5), length)
        taps = [kernel((x - center + 0.5) / stretch) for x in range(first, last)]
        matrix[row, first:last] = np.array(taps) / sum(taps)
    return matrix


def triangle(x: float) -> float:
    return max(1 - abs(x), 0.0)


def cubic(x: float, a: float = -0.5) -> float:
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


@pytest.mark.parametrize(("name", "support", "kernel"), [("bilinear", 1.0, triangle), ("bicubic", 2.0, cubic)])
@pytest.mark.parametrize(("length", "resized"), [(7, 3), (3, 7), (10, 5), (5, 10), (97, 32), (11, 12), (1, 4)])
def test_weights_are_those_of_pillow(name, support, kernel, length, resized):
    matrix = resampling_matrix(length, resized, resized, name)
    np.testing.assert_allclose(matrix, pillow_weights(length, resized, support, kernel), atol=2**-22)
    np.testing.assert_array_equal(matrix * 2.0**22, np.round(matrix * 2.0**22))


def test_an_edge_that_keeps_its_size_is_left_alone():
    np.testing.assert_array_equal(resampling_matrix(5, 5, 5, "bicubic"), np.eye(5))
    np.testing.assert_array_equal(resampling_matrix(5, 5, 3, "bicubic"), np.eye(5)[1:4])


def test_a_crop_takes_rows_of_the_whole():
    whole = resampling_matrix(50, 33, 33, "bicubic")
    np.testing.assert_array_equal(resampling_matrix(50, 33, 20, "bicubic"), whole[6:26])


def test_beside_the_picture_there_is_nothing():
    padded = resampling_matrix(50, 20, 25, "bilinear")
    np.testing.assert_array_equal(padded[2:22], resampling_matrix(50, 20, 20, "bilinear"))
    assert not padded[:2].any()
    assert not padded[22:].any()
    np.testing.assert_array_equal(inside(20, 25), [False] * 2 + [True] * 20 + [False] * 3)


@pytest.mark.parametrize(
    ("resized", "size", "start"),
    [
        (256, 224, 16),
        (341, 224, 58),  # 58.5, to the even one
        (343, 224, 60),  # 59.5, to the even one
        (224, 224, 0),
        (223, 224, 0),
        (221, 224, -1),
        (100, 224, -62),
    ],
)
def test_a_crop_starts_where_halves_are_rounded_to_even(resized, size, start):
    assert crop_start(resized, size) == start


@pytest.mark.parametrize(
    ("picture", "size", "crop_pct", "mode", "resized"),
    [
        ((375, 500), (224, 224), 0.875, "center", (256, 341)),
        ((500, 375), (224, 224), 0.875, "center", (341, 256)),
        # 1.5 times 235 is 352.5, and cut off: 352
        ((400, 600), (224, 224), 0.95, "center", (235, 352)),
        ((400, 400), (224, 224), 0.965, "center", (232, 232)),
        # Not square: to the target whose edge is relatively the longer one, rounded
        ((400, 600), (100, 200), 1.0, "center", (133, 200)),
        ((400, 600), (200, 100), 1.0, "center", (200, 300)),
        ((400, 601), (224, 224), 0.875, "squash", (256, 256)),
        ((400, 600), (224, 224), 0.875, "border", (171, 256)),
        ((1, 4000), (224, 224), 1.0, "border", (1, 224)),
    ],
)
def test_the_size_before_the_crop(picture, size, crop_pct, mode, resized):
    assert resized_size(picture, size, crop_pct, mode) == resized


@pytest.mark.parametrize(
    ("picture", "resized", "first"),
    [
        ((200, 100), (100, 50), False),
        ((210, 100), (105, 50), True),
        ((100, 200), (50, 100), False),
        ((100, 100), (98, 99), False),
        ((100, 100), (97, 99), True),
        ((100, 100), (99, 150), True),
        ((100, 100), (100, 150), False),
        ((100, 100), (120, 150), False),
    ],
)
def test_the_height_comes_first_where_much_more_of_it_is_lost(picture, resized, first):
    assert height_first(picture, resized) is first


def test_split_weights_need_eleven_bits_each():
    matrix = resampling_matrix(375, 256, 224, "bicubic")
    coarse, fine = split_weights(matrix)
    np.testing.assert_array_equal(coarse + fine, matrix)
    for part in (coarse, fine):
        assert part.dtype == np.float32
        bits = [math.frexp(value)[0] * 2**11 for value in part[part != 0].tolist()]
        assert all(value.is_integer() for value in bits)
