"""Changes of one picture, uint8 of shape `(height, width, 1 or 3)`, as Pillow, timm and torchvision make them.

OpenCV does the work. Results are Pillow's within a rounding of one level; `affine` differs in the outermost pixels of
what is moved, which OpenCV blends with the fill.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keras_residual import _optional

Matrix = tuple[float, float, float, float, float, float]

# A result of weighted sums is cut off, as by Pillow, and not rounded; the thousandth keeps whole numbers whole.
_CUT_OFF = -0.499
_LEVELS = np.arange(256)
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


def _cv2() -> Any:
    return _optional.require("cv2", extra="train")


def resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns a picture at another size: bilinear where it grows, the mean over each new pixel's area where it shrinks.

    So nothing aliases. Each axis goes by its own rule.
    """
    cv2 = _cv2()
    high, wide, channels = picture.shape
    small = (min(high, height), min(wide, width))
    if small != (high, wide):
        picture = cv2.resize(picture, small[::-1], interpolation=cv2.INTER_AREA)
    if small != (height, width):
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
    return picture.reshape(height, width, channels)


def fitted(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns the middle of a picture that is resized, with its proportions, until it covers the size."""
    high, wide, _ = picture.shape
    if (high, wide) == (height, width):
        return picture
    share = min(high / height, wide / width)
    inner_high, inner_wide = min(high, round(height * share)), min(wide, round(width * share))
    top, left = (high - inner_high) // 2, (wide - inner_wide) // 2
    return resized(picture[top : top + inner_high, left : left + inner_wide], height, width)


def affine(picture: np.ndarray, matrix: Matrix, fill: int = 0) -> np.ndarray:
    """Returns a picture whose pixel (x, y) is that at (ax + by + c, dx + ey + f), bilinearly.

    Coordinates are those of Pillow's `Image.transform`: the first pixel's middle is at (0.5, 0.5).
    """
    cv2 = _cv2()
    a, b, c, d, e, f = matrix
    middle = np.array([[a, b, c + (a + b - 1) / 2], [d, e, f + (d + e - 1) / 2]])
    height, width, channels = picture.shape
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    # Of four channels a pixel is one word, and takes half the time of three.
    wider = picture if channels == 1 else cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA)
    moved = cv2.warpAffine(
        wider, middle, (width, height), flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=(fill,) * 4
    )
    return moved.reshape(picture.shape) if channels == 1 else cv2.cvtColor(moved, cv2.COLOR_RGBA2RGB)


def shear_x(picture: np.ndarray, factor: float, fill: int = 0) -> np.ndarray:
    """Moves each row by `factor` times its height."""
    return affine(picture, (1, factor, 0, 0, 1, 0), fill)


def shear_y(picture: np.ndarray, factor: float, fill: int = 0) -> np.ndarray:
    """Moves each column by `factor` times its distance from the left."""
    return affine(picture, (1, 0, 0, factor, 1, 0), fill)


def translate_x(picture: np.ndarray, pixels: float, fill: int = 0) -> np.ndarray:
    """Moves a picture to the left."""
    return affine(picture, (1, 0, pixels, 0, 1, 0), fill)


def translate_y(picture: np.ndarray, pixels: float, fill: int = 0) -> np.ndarray:
    """Moves a picture up."""
    return affine(picture, (1, 0, 0, 0, 1, pixels), fill)


def rotate(picture: np.ndarray, degrees: float, fill: int = 0) -> np.ndarray:
    """Turns a picture around its middle, counter-clockwise."""
    height, width, _ = picture.shape
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = width / 2, height / 2
    return affine(picture, (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y), fill)


def brightness(picture: np.ndarray, factor: float) -> np.ndarray:
    """Multiplies all levels."""
    return _mapped(picture, _blend(0, factor))


def contrast(picture: np.ndarray, factor: float) -> np.ndarray:
    """Multiplies distances from the mean grey level."""
    grey = int(_cv2().mean(_grey(picture))[0] + 0.5)
    return _mapped(picture, _blend(grey, factor))


def color(picture: np.ndarray, factor: float) -> np.ndarray:
    """Multiplies distances from the pixel's own grey."""
    if picture.shape[-1] == 1:
        return picture
    cv2 = _cv2()
    grey = cv2.cvtColor(_grey(picture), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(picture, factor, grey, 1 - factor, _CUT_OFF)


def hue(picture: np.ndarray, turn: float) -> np.ndarray:
    """Turns all hues by a share of the circle."""
    if picture.shape[-1] == 1:
        return picture
    cv2 = _cv2()
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(int(turn * 255) % 256)  # which wraps around
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def sharpness(picture: np.ndarray, factor: float) -> np.ndarray:
    """Multiplies distances from a smoothed picture; the outermost pixels stay."""
    if min(picture.shape[:2]) < 3:
        return picture
    cv2 = _cv2()
    smooth = cv2.filter2D(picture, -1, _SMOOTH)
    result = cv2.addWeighted(picture, factor, smooth, 1 - factor, _CUT_OFF).reshape(picture.shape)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        result[edge] = picture[edge]
    return result


def invert(picture: np.ndarray) -> np.ndarray:
    """Returns the negative."""
    return 255 - picture


def posterize(picture: np.ndarray, bits: int) -> np.ndarray:
    """Keeps the upper bits of each level, 0 to 8 of them."""
    return picture & np.uint8(256 - 2 ** (8 - bits))


def solarize(picture: np.ndarray, threshold: float) -> np.ndarray:
    """Inverts the levels from a threshold on."""
    return _mapped(picture, np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS))


def solarize_add(picture: np.ndarray, added: int) -> np.ndarray:
    """Makes the levels below 128 lighter."""
    return _mapped(picture, np.where(_LEVELS < 128, np.minimum(255, _LEVELS + added), _LEVELS))


def equalize(picture: np.ndarray) -> np.ndarray:
    """Has each level of each channel equally often, as far as that goes."""
    cv2 = _cv2()
    channels, pixels = picture.shape[-1], picture.shape[0] * picture.shape[1]
    counts = np.stack(
        [cv2.calcHist([picture], [channel], None, [256], [0, 256]).ravel() for channel in range(channels)]
    )
    counts = counts.astype(np.int64)
    # As many pixels a level, those of the highest level that there is apart.
    highest = 255 - np.argmax(counts[:, ::-1] > 0, axis=1)
    step = ((pixels - counts[np.arange(channels), highest]) // 255)[:, None]
    before = np.cumsum(counts, axis=1) - counts
    return _mapped(picture, np.where(step > 0, np.minimum(255, (before + step // 2) // np.maximum(1, step)), _LEVELS))


def autocontrast(picture: np.ndarray) -> np.ndarray:
    """Stretches the levels of each channel to 0..255."""
    cv2 = _cv2()
    found = [cv2.minMaxLoc(cv2.extractChannel(picture, channel))[:2] for channel in range(picture.shape[-1])]
    low, high = np.array(found)[..., None].swapaxes(0, 1)
    scale = 255 / np.maximum(1, high - low)
    # In this order, and cut off, as Pillow computes it.
    return _mapped(picture, np.where(high > low, np.clip(_LEVELS * scale - low * scale, 0, 255), _LEVELS))


def _blend(grey: int, factor: float) -> np.ndarray:
    """Returns the levels moved from a grey by a factor, in single precision and cut off as by Pillow."""
    moved = np.float32(grey) + np.float32(factor) * (_LEVELS - grey).astype(np.float32)
    return np.clip(moved, 0, 255)


def _mapped(picture: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Returns a picture by a table of levels, of shape `(256,)` for all channels or `(channels, 256)`."""
    table = table.astype(np.uint8)
    return _cv2().LUT(picture, table if table.ndim == 1 else table.T[None].copy()).reshape(picture.shape)


def _grey(picture: np.ndarray) -> np.ndarray:
    """Returns the luma of each pixel, of shape `(height, width)`."""
    cv2 = _cv2()
    return picture[..., 0] if picture.shape[-1] == 1 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
