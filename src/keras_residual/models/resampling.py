"""Pillow's resizing, and a crop after it, as one matrix an axis.

Antialiased resizing is a weighted mean of neighbours, separately along each axis, so it is a product with a matrix.
Pillow's weights are those of the reference transforms that published accuracies were measured with.
"""

from __future__ import annotations

import functools
import math

import numpy as np

INTERPOLATIONS = ("bilinear", "bicubic")
CROP_MODES = ("center", "squash", "border")
# Half the width of the filter, in pixels of the smaller of the two pictures.
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
# Pillow computes 8-bit pictures with weights of so many binary places.
_UNITS = 2.0**22


def resized_size(
    picture: tuple[int, int], size: tuple[int, int], crop_pct: float, crop_mode: str = "center"
) -> tuple[int, int]:
    """Returns the height and width to which a picture is resized before the crop.

    Args:
        picture: Height and width of the picture.
        size: Height and width after the crop.
        crop_pct: Share of the resized picture that the crop keeps along an edge, in `(0, 1]`.
        crop_mode: `"center"` resizes until the picture covers `size / crop_pct`, `"border"` until it fits into it,
            both with its proportions; `"squash"` gives up the proportions.

    Example:
        >>> resized_size((375, 500), (224, 224), 0.875)
        (256, 341)
    """
    target = (math.floor(size[0] / crop_pct), math.floor(size[1] / crop_pct))
    if crop_mode == "squash":
        return target
    height, width = picture
    if crop_mode == "center" and target[0] == target[1]:
        # The longer edge is cut off to a whole number here and rounded below, as in the reference transforms.
        short, long = min(picture), max(picture)
        longer = int(target[0] * long / short)
        return (longer, target[1]) if width <= height else (target[0], longer)
    ratios = (height / target[0], width / target[1])
    ratio = max(ratios) if crop_mode == "border" else min(ratios)
    return max(round(height / ratio), 1), max(round(width / ratio), 1)


def height_first(picture: tuple[int, int], resized: tuple[int, int]) -> bool:
    """Returns whether the height is resized before the width; the pixels between the two are rounded, so it shows.

    The order of Pillow 13. Before it the width came first always, which is another order for pictures more than twice
    as high as wide, and for squashed ones.
    """
    lost_height, lost_width = (before - after for before, after in zip(picture, resized, strict=True))
    return lost_height > max(2 * lost_width, 0)


def crop_start(resized: int, size: int) -> int:
    """Returns where a central crop begins; below 0 where the picture is the smaller one and is padded.

    Example:
        >>> crop_start(341, 224), crop_start(100, 224)
        (58, -62)
    """
    # Python rounds halves to even, as the reference transforms do.
    return round((resized - size) / 2) if resized >= size else -((size - resized) // 2)


def inside(resized: int, size: int) -> np.ndarray:
    """Returns for each of the `size` pixels of a crop whether it lies in the picture, not in the padding."""
    positions = crop_start(resized, size) + np.arange(size)
    return (positions >= 0) & (positions < resized)


@functools.lru_cache(maxsize=64)
def resampling_matrix(length: int, resized: int, size: int, interpolation: str) -> np.ndarray:
    """Returns the matrix that resizes an edge and cuts out its centre.

    Args:
        length: Pixels of the edge before.
        resized: Pixels of the whole edge after resizing.
        size: Pixels of the crop.
        interpolation: `"bilinear"` or `"bicubic"`.

    Returns:
        float32 of shape `(size, length)`. Each row sums up to 1, and to 0 where the crop reaches beyond the picture.

    Example:
        >>> print(resampling_matrix(4, 2, 2, "bilinear").round(3))
        [[0.429 0.429 0.143 0.   ]
         [0.    0.143 0.429 0.429]]
    """
    positions = crop_start(resized, size) + np.arange(size)
    known = inside(resized, size)
    matrix = np.zeros((size, length))
    if length == resized:
        matrix[known, positions[known]] = 1
        return matrix.astype(np.float32)
    scale = length / resized
    stretch = max(scale, 1.0)
    centers = (positions[known, None] + 0.5) * scale
    support = _SUPPORT[interpolation] * stretch
    pixels = np.arange(length)
    near = (pixels >= np.trunc(centers - support + 0.5)) & (pixels < np.trunc(centers + support + 0.5))
    weights = np.where(near, _filter((pixels - centers + 0.5) / stretch, interpolation), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    matrix[known] = np.trunc(weights * _UNITS + np.copysign(0.5, weights)) / _UNITS
    return matrix.astype(np.float32)


def split_weights(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns two matrices that add up to a resampling matrix, of eleven binary places each.

    Products of pixels with weights of 22 places do not fit into the 24 bits of float32, and those with eleven do, also
    where an accelerator keeps no more than eleven bits of each factor.

    Example:
        >>> coarse, fine = split_weights(resampling_matrix(4, 3, 3, "bilinear"))
        >>> float(coarse[0, 0] * 2**10), float(fine[0, 0] * 2**22)
        (717.0, -819.0)
    """
    coarse = np.round(matrix * 2**10) / np.float32(2**10)
    return coarse, matrix - coarse


def _filter(distance: np.ndarray, interpolation: str) -> np.ndarray:
    x = np.abs(distance)
    if interpolation == "bilinear":
        return np.maximum(1 - x, 0)
    a = -0.5  # Pillow's; other libraries have -0.75
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))
