"""One opened picture to the asked height, width and channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_residual import _optional

# Pillow's modes for one channel of grey, with and without transparency.
GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
_TRANSPARENT_MODES = ("RGBA", "RGBa", "LA", "La", "PA")
# EXIF's tag of the orientation, and what brings each of its values upright; the last four exchange height and width.
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
    8: "ROTATE_90",
}  # fmt: skip
_FIRST_TURN = 5


def to_pixels(image: Any, shape: tuple[int, int, int]) -> np.ndarray:
    """Returns an opened Pillow image as uint8 of the shape `(height, width, channels)`, 0..255.

    Of several frames or pages it is the first. The EXIF orientation is honoured, transparency is laid over white, 16
    bits become 8, colours for print and palettes become red, green and blue. The picture keeps its proportions: it is
    resized with antialiasing until it covers the shape, and what overhangs is cut off evenly.

    Raises:
        ValueError: If the values have no known range (floats, 32-bit integers).
    """
    pillow = _optional.require("PIL.Image", extra="train")
    ops = _optional.require("PIL.ImageOps", extra="train")
    height, width, channels = shape
    shrink(image, shape)
    image.load()
    upright = _UPRIGHT.get(_orientation(image))
    transparent = image.mode in _TRANSPARENT_MODES or "transparency" in image.info
    if upright is not None:
        image = image.transpose(pillow.Transpose[upright])
    image = _eight_bits(image)
    image = image.convert("RGBA" if transparent else "L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = ops.fit(image, (width, height), method=pillow.Resampling.BICUBIC)
    if transparent:
        image = pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), image)
        image = image.convert("L" if channels == 1 else "RGB")
    return np.asarray(image, dtype=np.uint8).reshape(shape)


def shrink(image: Any, shape: tuple[int, int, int]) -> None:
    """Has a large JPEG decoded at a half, a quarter or an eighth where that still is twice the asked size."""
    image.draft(None, (2 * max(shape[:2]),) * 2)


def is_turned(image: Any) -> bool:
    """Returns whether an opened Pillow image is shown with height and width exchanged."""
    image.load()
    return _orientation(image) in range(_FIRST_TURN, 9)


def _orientation(image: Any) -> int:
    """Returns EXIF's number for a decoded image; 1 for none."""
    # A picture is none the worse for EXIF data that are damaged, of which Pillow says so by errors of many types.
    try:
        return image.getexif().get(_ORIENTATION, 1)
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
