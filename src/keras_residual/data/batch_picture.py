"""A batch of pictures as one picture, with its labels: to be looked at before anything is trained on it."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np

from keras_residual._errors import bad_argument, printable
from keras_residual._optional import require

_LEAST_PIXELS = 96  # of a picture that is drawn
_GAP = 0.25  # for a label, as a share of the side
_LABEL, _SHARE = 24, 0.005


def draw_batch(pictures: np.ndarray, targets: np.ndarray, classes: Sequence[str]) -> bytes:
    """Returns a batch as PNG: pictures in rows, each above its label, or above the shares of mixed labels.

    Args:
        pictures: uint8 of shape `(examples, height, width, 1 or 3)`.
        targets: Indices of classes of shape `(examples,)`, shares of shape `(examples, classes)`, or numbers.
        classes: Class names in index order; `()` where the targets are numbers.

    Raises:
        ValueError: If there are no pictures.
        ImportError: If matplotlib is not installed.

    Example:
        >>> draw_batch(np.zeros((2, 8, 8, 3), np.uint8), np.array([0, 1]), ("cat", "dog"))[1:4]
        b'PNG'
    """
    if pictures.ndim != 4 or not len(pictures):
        raise bad_argument("draw_batch", "pictures", "a batch of pictures, one or more", pictures)
    figure_module = require("matplotlib.figure", extra="plot")
    count, height, width, _ = pictures.shape
    columns = math.ceil(math.sqrt(count * height / width))
    rows = math.ceil(count / columns)
    scale = max(1, math.ceil(_LEAST_PIXELS / min(height, width)))
    down, across = round(height * (1 + _GAP)), width + max(1, round(width * _GAP / 4))
    whole = np.full((rows * down, columns * across, 3), 255, np.uint8)
    places = [(index // columns * down, index % columns * across) for index in range(count)]
    for picture, (top, left) in zip(pictures, places, strict=True):
        whole[top : top + height, left : left + width] = picture
    dpi = 100
    # A Figure of its own needs no pyplot, hence no display; one axes for all, since each takes a tenth of a second.
    figure = figure_module.Figure(figsize=(whole.shape[1] * scale / dpi, whole.shape[0] * scale / dpi), dpi=dpi)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(whole, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    size = min(9, 0.6 * _GAP * height * scale * 72 / dpi / 1.2, 1.6 * width * scale * 72 / dpi / _LABEL)
    for text, (top, left) in zip(labels(targets, classes), places, strict=True):
        middle = (left + (width - 1) / 2, top + height + 0.5 * _GAP * height)
        axes.text(*middle, printable(text, _LABEL), size=size, ha="center", va="center", parse_math=False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def labels(targets: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Returns the label of each example as text, with the shares of those that are mixed, the largest first."""
    if not classes:
        return [f"{float(number):.4g}" for number in np.reshape(targets, -1)]
    if targets.ndim == 1:
        return [classes[int(index)] for index in targets]
    return [_mixed(shares, classes) for shares in targets]


def _mixed(shares: np.ndarray, classes: Sequence[str]) -> str:
    order = [int(index) for index in np.argsort(-shares, kind="stable") if shares[index] >= _SHARE]
    if len(order) == 1:
        return classes[order[0]]
    return " + ".join(f"{shares[index]:.2f} {classes[index]}" for index in order)
