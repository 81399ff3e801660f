"""The picture of a batch shows its pictures, all of them, and says their labels."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from keras_residual.data import draw_batch
from keras_residual.data.batch_picture import labels

pytestmark = pytest.mark.any_backend


def drawn(*arguments):
    return np.asarray(Image.open(io.BytesIO(draw_batch(*arguments))).convert("RGB"))


@pytest.mark.parametrize("shape", [(1, 8, 8, 3), (5, 32, 32, 1), (7, 40, 20, 3), (3, 128, 150, 3)])
def test_every_picture_is_there(shape):
    colours = np.random.default_rng(0).permutation(200)[: shape[0]] + 20
    pictures = np.broadcast_to(colours[:, None, None, None], shape).astype(np.uint8)
    found = drawn(pictures, np.zeros(shape[0], int), ("a", "b"))
    levels, counts = np.unique(found[..., 0][np.ptp(found, axis=2) == 0], return_counts=True)
    for colour in colours:
        # Its pixels, each drawn so large that a picture has 96 of them on its smaller side.
        scale = max(1, -(-96 // min(shape[1:3])))
        assert counts[levels == colour].sum() >= 0.9 * scale**2 * shape[1] * shape[2]


def test_labels_are_written_below_what_they_are_of():
    white = np.full((1, 32, 32, 3), 255, np.uint8)
    assert drawn(white, np.array([0]), (" ", "b")).min() == 255
    written = drawn(white, np.array([1]), ("a", "bbbbbb"))
    assert written.min() < 100
    assert written[: round(written.shape[0] * 0.79)].min() == 255


def test_labels_are_names_shares_or_numbers():
    assert labels(np.array([1, 0]), ("cat", "dog")) == ["dog", "cat"]
    mixed = np.array([[0.25, 0.75, 0], [0, 1, 0], [0.001, 0, 0.999]])
    assert labels(mixed, ("cat", "dog", "$x^2$")) == ["0.75 dog + 0.25 cat", "dog", "$x^2$"]
    assert labels(np.array([1.5, -2.0]), ()) == ["1.5", "-2"]
    drawn(np.zeros((1, 8, 8, 3), np.uint8), np.array([0]), ("$\\frac{", "b"))  # no formula


@pytest.mark.parametrize("wrong", [np.zeros((0, 8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)])
def test_no_batch_is_refused(wrong):
    with pytest.raises(ValueError, match=f"^{re.escape('draw_batch: `pictures` must be a batch of pictures')}"):
        draw_batch(wrong, np.zeros(0, int), ("a", "b"))
