"""Encoded pictures (files or bytes) to one uint8 array: looked at first, then decoded in threads."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_residual import _optional
from keras_residual.data.pixels import GREY_MODES, to_pixels

# The decoded pictures of a set stay in memory together; more than this is refused before decoding.
MAX_PICTURE_BYTES = 4 * 2**30
# Pictures that all share a size up to this keep it; others get DEFAULT_SIZE.
LARGEST_OWN_SIZE = 96
DEFAULT_SIZE = 64
# EXIF's tag of the orientation; these of its values exchange height and width.
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)
_MOST_LISTED = 5


class Picture(NamedTuple):
    """An encoded picture: how messages call it, and the file or the bytes that hold it."""

    name: str
    content: Path | bytes


class Header(NamedTuple):
    """What a picture says of itself before it is decoded; height and width as they are shown."""

    height: int
    width: int
    grey: bool


def read_headers(pictures: Sequence[Picture], *, owner: str) -> list[Header]:
    """Returns the header of each picture.

    Raises:
        ValueError: If there are files that are no pictures; names them all up to five.
    """

    def read(picture: Picture) -> Header:
        with _open(picture) as image:
            width, height = image.size
            # Only here does it matter, and Pillow decodes a whole PNG to find its EXIF.
            matters = width != height and max(width, height) <= LARGEST_OWN_SIZE
            if matters and image.getexif().get(_ORIENTATION) in _TURNED:
                width, height = height, width
            return Header(height, width, image.mode in GREY_MODES)

    return _each(read, pictures, owner)


def choose_shape(headers: Sequence[Header], asked: tuple[int | None, int | None, int | None]) -> tuple[int, int, int]:
    """Returns height, width and channels for all pictures: what was asked, else what the headers suggest.

    A size that all share and that is at most `LARGEST_OWN_SIZE` stays, others become `DEFAULT_SIZE` squared; one
    channel where all pictures are grey, else three.
    """
    height, width, channels = asked
    if height is None or width is None:
        sizes = {(header.height, header.width) for header in headers}
        shared = next(iter(sizes)) if len(sizes) == 1 else (math.inf, math.inf)
        height, width = shared if max(shared) <= LARGEST_OWN_SIZE else (DEFAULT_SIZE, DEFAULT_SIZE)
    if channels is None:
        channels = 1 if all(header.grey for header in headers) else 3
    return int(height), int(width), channels


def check_memory(count: int, shape: tuple[int, int, int], *, owner: str) -> None:
    """Raises a ValueError where so many pictures of this shape would take more than `MAX_PICTURE_BYTES`."""
    size = count * math.prod(shape)
    if size > MAX_PICTURE_BYTES:
        fits = math.isqrt(MAX_PICTURE_BYTES // (count * shape[2]))
        raise ValueError(
            f"{owner}: {count} pictures of {shape[0]}×{shape[1]}×{shape[2]} would take {size / 2**30:.1f} GiB, "
            f"more than the {MAX_PICTURE_BYTES / 2**30:.1f} GiB of memory that are allowed. "
            f"Lower `image_size`; {fits} is the largest that fits."
        )


def decode(pictures: Sequence[Picture], shape: tuple[int, int, int], *, owner: str) -> np.ndarray:
    """Returns the pictures in their order as uint8 of shape `(pictures, height, width, channels)`, 0..255.

    Raises:
        ValueError: If there are damaged pictures; names them all up to five.
    """
    result = np.empty((len(pictures), *shape), np.uint8)

    def fill(row: int) -> None:
        with _open(pictures[row]) as image:
            result[row] = to_pixels(image, shape)

    _each(fill, range(len(pictures)), owner, names=pictures)
    return result


def _open(picture: Picture) -> Any:
    pillow = _optional.require("PIL.Image", extra="train")
    content = picture.content
    return pillow.open(io.BytesIO(content) if isinstance(content, bytes) else content)


def _each(function: Callable, items: Sequence, owner: str, names: Sequence[Picture] | None = None) -> list:
    """Returns the function of each item, called in threads, or raises one error that names every item it failed on."""
    unidentified = _optional.require("PIL", extra="train").UnidentifiedImageError

    def attempt(item: Any) -> tuple[Any, str]:
        try:
            return function(item), ""
        except unidentified:
            return None, "not a picture"
        # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and others for damaged data.
        except Exception as error:
            return None, str(error) or type(error).__name__

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = list(pool.map(attempt, items))
    failed = [
        f"{picture.name} ({reason})" for picture, (_, reason) in zip(names or items, results, strict=True) if reason
    ]
    if failed:
        listing = ", ".join(failed[:_MOST_LISTED]) + (", …" if len(failed) > _MOST_LISTED else "")
        few = "1 file is not a picture" if len(failed) == 1 else f"{len(failed)} files are not pictures"
        way_out = "Remove or replace it." if len(failed) == 1 else "Remove or replace them."
        raise ValueError(f"{owner}: {few} that can be read: {listing}. {way_out}")
    return [value for value, _ in results]
