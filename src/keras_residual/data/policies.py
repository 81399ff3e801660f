"""RandAugment and TrivialAugment: which change of a picture, and how much of it, from numbers in [0, 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import NormalDist
from types import MappingProxyType

import numpy as np

from keras_residual.data import picture_ops as ops

DRAWS_OF_RANDAUGMENT, DRAWS_OF_TRIVIALAUGMENT = 4, 3
LARGEST_MAGNITUDE = 10
_BINS = 31
_GREY, _BLACK = 128, 0

# A picture, a level in [0, 1] and a sign in; the changed picture out.
Change = Callable[[np.ndarray, float, int], np.ndarray]


def _enhanced(change: Callable[[np.ndarray, float], np.ndarray], most: float, least: float = 0.0) -> Change:
    return lambda picture, level, sign: change(picture, max(least, 1 + sign * most * level))


def _moved(change: Callable[[np.ndarray, float, int], np.ndarray], most: float, fill: int) -> Change:
    return lambda picture, level, sign: change(picture, sign * most * level, fill)


RANDAUGMENT: Mapping[str, Change] = MappingProxyType(
    {
        "autocontrast": lambda picture, level, sign: ops.autocontrast(picture),
        "equalize": lambda picture, level, sign: ops.equalize(picture),
        "invert": lambda picture, level, sign: ops.invert(picture),
        "rotate": _moved(ops.rotate, 30, _GREY),
        "posterize": lambda picture, level, sign: ops.posterize(picture, 4 - int(4 * level)),
        "solarize": lambda picture, level, sign: ops.solarize(picture, 256 - int(256 * level)),
        "solarize_add": lambda picture, level, sign: ops.solarize_add(picture, int(110 * level)),
        "color": _enhanced(ops.color, 0.9, 0.1),
        "contrast": _enhanced(ops.contrast, 0.9, 0.1),
        "brightness": _enhanced(ops.brightness, 0.9, 0.1),
        "sharpness": _enhanced(ops.sharpness, 0.9, 0.1),
        "shear_x": _moved(ops.shear_x, 0.3, _GREY),
        "shear_y": _moved(ops.shear_y, 0.3, _GREY),
        "translate_x": lambda picture, level, sign: ops.translate_x(
            picture, sign * 0.45 * level * picture.shape[1], _GREY
        ),
        "translate_y": lambda picture, level, sign: ops.translate_y(
            picture, sign * 0.45 * level * picture.shape[0], _GREY
        ),
    }
)
"""The changes of timm's `rand-…-inc1`, each stronger with the level."""

TRIVIALAUGMENT: Mapping[str, Change] = MappingProxyType(
    {
        "identity": lambda picture, level, sign: picture,
        "shear_x": _moved(ops.shear_x, 0.99, _BLACK),
        "shear_y": _moved(ops.shear_y, 0.99, _BLACK),
        "translate_x": lambda picture, level, sign: ops.translate_x(picture, -sign * int(32 * level), _BLACK),
        "translate_y": lambda picture, level, sign: ops.translate_y(picture, -sign * int(32 * level), _BLACK),
        "rotate": _moved(ops.rotate, 135, _BLACK),
        "brightness": _enhanced(ops.brightness, 0.99),
        "color": _enhanced(ops.color, 0.99),
        "contrast": _enhanced(ops.contrast, 0.99),
        "sharpness": _enhanced(ops.sharpness, 0.99),
        "posterize": lambda picture, level, sign: ops.posterize(picture, round(8 - 6 * level)),
        "solarize": lambda picture, level, sign: ops.solarize(picture, 255 * (1 - level)),
        "autocontrast": lambda picture, level, sign: ops.autocontrast(picture),
        "equalize": lambda picture, level, sign: ops.equalize(picture),
    }
)
"""The changes of torchvision's `TrivialAugmentWide`."""


def randaugment(picture: np.ndarray, draws: np.ndarray, magnitude: float, spread: float) -> np.ndarray:
    """Returns a picture after several changes of timm's `rand-mM-mstdS-inc1`, each made with probability 1/2.

    Args:
        picture: uint8 of shape `(height, width, 1 or 3)`.
        draws: Numbers in `[0, 1)`, four a change.
        magnitude: Strength in `[0, 10]`.
        spread: Standard deviation of the strength, which is cut off at 0 and 10.
    """
    changes = tuple(RANDAUGMENT.values())
    for which, whether, strength, sign in draws.reshape(-1, DRAWS_OF_RANDAUGMENT):
        if whether < 0.5:
            level = magnitude
            if spread:
                level = NormalDist(magnitude, spread).inv_cdf(max(strength, 2.0**-54))
            level = min(max(level, 0.0), LARGEST_MAGNITUDE) / LARGEST_MAGNITUDE
            picture = changes[int(which * len(changes))](picture, level, 1 if sign < 0.5 else -1)
    return picture


def trivialaugment(picture: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Returns a picture after one change of torchvision's `TrivialAugmentWide`, of one of 31 strengths.

    Args:
        picture: uint8 of shape `(height, width, 1 or 3)`.
        draws: Three numbers in `[0, 1)`.
    """
    changes = tuple(TRIVIALAUGMENT.values())
    which, strength, sign = draws
    change = changes[int(which * len(changes))]
    return change(picture, int(strength * _BINS) / (_BINS - 1), 1 if sign < 0.5 else -1)
