import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_residual.data import random_flip, random_shift, shift_and_flip

pytestmark = pytest.mark.any_backend


def pictures(count=6, height=7, width=5, channels=3, seed=0):
    return np.random.default_rng(seed).integers(1, 256, (count, height, width, channels)).astype(np.uint8)


def shifted(picture, down, right):
    """The slow twin: moves a picture pixel by pixel."""
    result = np.zeros_like(picture)
    height, width, _ = picture.shape
    for row in range(height):
        for column in range(width):
            if 0 <= row + down < height and 0 <= column + right < width:
                result[row, column] = picture[row + down, column + right]
    return result


@given(st.integers(0, 2**32), st.integers(1, 4))
def test_a_shifted_picture_is_the_picture_moved_by_at_most_the_pixels(seed, pixels):
    batch = pictures()
    moved = random_shift(batch, np.random.default_rng(seed), pixels=pixels)
    assert (moved.shape, moved.dtype) == (batch.shape, batch.dtype)
    steps = range(-pixels, pixels + 1)
    for before, after in zip(batch, moved, strict=True):
        assert any(np.array_equal(after, shifted(before, down, right)) for down in steps for right in steps)


def test_every_shift_comes_up():
    batch = np.tile(pictures(1), (400, 1, 1, 1))
    moved = random_shift(batch, np.random.default_rng(0), pixels=1)
    assert len({picture.tobytes() for picture in moved}) == 9


def test_the_edge_can_fill_the_border():
    batch = np.full((20, 3, 3, 1), 7, np.uint8)
    np.testing.assert_array_equal(random_shift(batch, np.random.default_rng(0), pixels=2, mode="edge"), batch)


@given(st.integers(0, 2**32))
def test_a_flipped_picture_is_itself_or_its_mirror_image(seed):
    batch = pictures()
    for before, after in zip(batch, random_flip(batch, np.random.default_rng(seed)), strict=True):
        assert np.array_equal(after, before) or np.array_equal(after, before[:, ::-1])


def test_half_of_the_pictures_are_flipped():
    batch = pictures(4000)
    flipped = random_flip(batch, np.random.default_rng(0))
    share = np.mean([not np.array_equal(a, b) for a, b in zip(batch, flipped, strict=True)])
    assert abs(share - 0.5) < 0.04


def test_nothing_asked_changes_nothing():
    batch = pictures()
    np.testing.assert_array_equal(shift_and_flip()(batch, np.random.default_rng(0)), batch)


def test_the_batch_that_came_in_stays_as_it_was():
    batch = pictures()
    copy = batch.copy()
    shift_and_flip(pixels=3, flip=True)(batch, np.random.default_rng(0))
    np.testing.assert_array_equal(batch, copy)


@pytest.mark.parametrize("make", [shift_and_flip, lambda **a: random_shift(pictures(), np.random.default_rng(0), **a)])
def test_a_negative_shift_is_refused(make):
    with pytest.raises(ValueError, match=re.escape("`pixels` must be 0 or more, but received -1 (int).") + "$"):
        make(pixels=-1)


@pytest.mark.parametrize("pixels", [5, 10**6])
def test_nothing_of_a_picture_may_be_shifted_out_of_sight(pixels):
    message = (
        f"random_shift: `pixels` must be less than 5, the smaller side of the pictures, but received {pixels} (int)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        random_shift(pictures(), np.random.default_rng(0), pixels=pixels)
    assert random_shift(pictures(), np.random.default_rng(0), pixels=4).shape == pictures().shape
