"""One decoded picture, or an array of them, to the asked height, width and channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_residual import _optional

# Pillow's modes for one channel of grey, with and without transparency.
GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
_TRANSPARENT_MODES = ("RGBA", "RGBa", "LA", "La", "PA")


def to_pixels(image: Any, shape: tuple[int, int, int]) -> np.ndarray:
    """Returns an opened Pillow image as uint8 of the shape `(height, width, channels)`, 0..255.

    The EXIF orientation is honoured, transparency is laid over white, 16 bits become 8. The picture keeps its
    proportions: it is resized with antialiasing until it covers the shape, and what overhangs is cut off evenly.

    Raises:
        ValueError: If the values have no known range (floats, 32-bit integers).
    """
    pillow = _optional.require("PIL.Image", extra="train")
    ops = _optional.require("PIL.ImageOps", extra="train")
    height, width, channels = shape
    # A large JPEG is decoded at a half, a quarter or an eighth where that still is twice the asked size.
    image.draft(None, (2 * max(height, width),) * 2)
    ops.exif_transpose(image, in_place=True)
    image = _eight_bits(image)
    if image.mode in _TRANSPARENT_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        image = pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = ops.fit(image, (width, height), method=pillow.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.uint8).reshape(shape)


def conform(pictures: np.ndarray, shape: tuple[int | None, int | None, int | None]) -> np.ndarray:
    """Returns the pictures at the asked height, width and channels, each None where it stays.

    Args:
        pictures: uint8 of shape `(examples, height, width, 1 or 3)`, 0..255.
        shape: Height, width, channels.
    """
    height, width, channels = (
        own if asked is None else asked for asked, own in zip(shape, pictures.shape[1:], strict=True)
    )
    if pictures.shape[1:] == (height, width, channels):
        return pictures
    pillow = _optional.require("PIL.Image", extra="train")
    result = np.empty((len(pictures), height, width, channels), np.uint8)
    for row, picture in enumerate(pictures):
        image = pillow.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
        result[row] = to_pixels(image, (height, width, channels))
    return result


def _eight_bits(image: Any) -> Any:
    """Returns the image with 8 bits a channel: Pillow's own conversion cuts 16 bits off at 255."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        pillow = _optional.require("PIL.Image", extra="train")
        return pillow.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"its values have no known range (mode {image.mode}); save it with 8 or 16 bits")
    return image
