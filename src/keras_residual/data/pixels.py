"""One opened picture to the asked height, width and channels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_residual import _optional

# Pillow's modes for one channel of grey, with and without transparency.
GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
_TRANSPARENT_MODES = ("RGBA", "RGBa", "LA", "La", "PA")
# EXIF's tag of the orientation, and what brings each of its values upright; the last four exchange height and width.
_ORIENTATION = 0x0112
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}
_FIRST_TURN = 5
# A JPEG is decoded smaller where it still is so many times the asked size.
_SPARE = 2
# Larger JPEGs go to Pillow alone: this is the size up to which what libjpeg takes beside the pixels is no matter.
_MOST_FAST_PIXELS = 2**24

Box = tuple[int, int, int, int]
"""Top, left, height and width of a part of a picture."""


def to_pixels(image: Any, shape: tuple[int, int, int], box: Callable[[int, int], Box] | None = None) -> np.ndarray:
    """Returns an opened Pillow image as uint8 of the shape `(height, width, channels)`, 0..255.

    Of several frames or pages it is the first. The EXIF orientation is honoured, transparency is laid over white, 16
    bits become 8, colours for print and palettes become red, green and blue. The picture keeps its proportions: what
    overhangs the shape is cut off evenly, and the rest is resized with antialiasing.

    Args:
        image: The image; Pillow has said what it is, and JPEGs are decoded by simplejpeg where that can.
        shape: Height, width and channels.
        box: Function of the picture's height and width that returns the part that is stretched to the shape; None for
            the middle, whose proportions stay.

    Raises:
        ValueError: If the values have no known range (floats, 32-bit integers).
    """
    least = _SPARE * max(shape[:2]), _SPARE * max(shape[:2])
    if box is None:
        return fit(_decoded(image, shape, least), shape[:2])
    width, height = image.size
    if image.format == "JPEG":  # its EXIF is known before it is decoded, and so is the part that is wanted
        turned = _orientation(image) >= _FIRST_TURN
        height, width = (width, height) if turned else (height, width)
        part = box(height, width)
        share = min(1.0, max(shape[0] / part[2], shape[1] / part[3]))
        least = (math.ceil(share * image.height), math.ceil(share * image.width))
        pixels = _decoded(image, shape, least)
    else:
        pixels = _decoded(image, shape, least)
        height, width = pixels.shape[:2]
        part = box(height, width)
    down, across = pixels.shape[0] / height, pixels.shape[1] / width
    top, left = math.floor(part[0] * down), math.floor(part[1] * across)
    bottom = max(top + 1, round((part[0] + part[2]) * down))
    right = max(left + 1, round((part[1] + part[3]) * across))
    return resized(pixels[top:bottom, left:right], shape[:2])


def fit(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns a picture `(height, width, channels)` of another size, whose proportions stay: the middle that fits."""
    height, width = pixels.shape[:2]
    if (height, width) == size:
        return pixels
    scale = min(height / size[0], width / size[1])
    part_height, part_width = (max(1, round(scale * side)) for side in size)
    top, left = (height - part_height) // 2, (width - part_width) // 2
    return resized(pixels[top : top + part_height, left : left + part_width], size)


def in_channels(picture: np.ndarray, channels: int) -> np.ndarray:
    """Returns a picture `(height, width, 1 or 3)` with 1 or 3 channels."""
    if picture.shape[-1] == channels:
        return picture
    pillow = _optional.require("PIL.Image", extra="train")
    image = pillow.fromarray(picture[..., 0] if channels == 3 else picture).convert("RGB" if channels == 3 else "L")
    return np.asarray(image).reshape(*picture.shape[:2], channels)


def resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns a picture `(height, width, channels)` stretched to another height and width."""
    if pixels.shape[:2] == size:
        return pixels
    cv2 = _optional.require("cv2", extra="train")
    # The mean over the area of a pixel is the filter that leaves nothing finer than it; there is none to be left out
    # where a picture is enlarged.
    smaller = pixels.shape[0] > size[0] or pixels.shape[1] > size[1]
    method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(pixels), size[::-1], interpolation=method).reshape(*size, pixels.shape[2])


def shrink(image: Any, shape: tuple[int, int, int]) -> None:
    """Has Pillow decode a large JPEG at a half, a quarter or an eighth where that still is twice the asked size."""
    image.draft(None, (_SPARE * max(shape[:2]),) * 2)


def is_turned(image: Any) -> bool:
    """Returns whether an opened Pillow image is shown with height and width exchanged."""
    image.load()
    return _orientation(image) >= _FIRST_TURN


def _decoded(image: Any, shape: tuple[int, int, int], least: tuple[int, int]) -> np.ndarray:
    """Returns the pixels upright, in the asked channels; of a JPEG in a size that is as stored or at least `least`."""
    pixels = _by_simplejpeg(image, shape[2], least)
    if pixels is None:
        pixels = _by_pillow(image, shape[2], least)
    upright = _UPRIGHT.get(_orientation(image))
    return pixels if upright is None else upright(pixels)


def _by_simplejpeg(image: Any, channels: int, least: tuple[int, int]) -> np.ndarray | None:
    """Returns the pixels of a JPEG of red, green and blue or of grey; None for what is left to Pillow."""
    if image.format != "JPEG" or math.prod(image.size) > _MOST_FAST_PIXELS:
        return None
    if image.mode != "RGB" and not (image.mode == "L" and channels == 1):
        return None
    simplejpeg = _optional.require("simplejpeg", extra="train")
    image.fp.seek(0)
    content = image.fp.read()
    try:
        pixels = simplejpeg.decode_jpeg(
            content, colorspace="RGB" if image.mode == "RGB" else "GRAY", min_height=least[0], min_width=least[1]
        )
    except ValueError:  # what it finds damaged may still be a picture to Pillow, which otherwise says what is wrong
        return None
    if image.mode == "RGB" and channels == 1:
        cv2 = _optional.require("cv2", extra="train")
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]
    return pixels


def _by_pillow(image: Any, channels: int, least: tuple[int, int]) -> np.ndarray:
    pillow = _optional.require("PIL.Image", extra="train")
    image.draft(None, least[::-1])
    image.load()
    mode = "L" if channels == 1 else "RGB"
    transparent = image.mode in _TRANSPARENT_MODES or "transparency" in image.info
    flat = _eight_bits(image)
    if transparent:
        flat = flat.convert("RGBA")
        flat = pillow.alpha_composite(pillow.new("RGBA", flat.size, "white"), flat)
    flat = flat.convert(mode)
    return np.asarray(flat, dtype=np.uint8).reshape(flat.height, flat.width, channels)


def _orientation(image: Any) -> int:
    """Returns EXIF's number for a decoded image; 1 for none."""
    # A picture is none the worse for EXIF data that are damaged, of which Pillow says so by errors of many types.
    try:
        number = image.getexif().get(_ORIENTATION, 1)
        return number if number in _UPRIGHT else 1
    except Exception:
        return 1


def _eight_bits(image: Any) -> Any:
    """Returns the image with 8 bits a channel: Pillow's own conversion cuts 16 bits off at 255."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        pillow = _optional.require("PIL.Image", extra="train")
        return pillow.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"its values have no known range (mode {image.mode}); save it with 8 or 16 bits")
    return image
