"""Pictures to one uint8 array: encoded ones (files or bytes) are looked at first, then decoded in threads."""

from __future__ import annotations

import io
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_residual import _optional
from keras_residual._errors import bad_data, printable
from keras_residual.data.files import in_words
from keras_residual.data.pixels import GREY_MODES, is_turned, shrink, to_pixels

# The only formats that are opened, whatever a file is called. Pillow knows many more, of which some start other
# programs (EPS runs Ghostscript) and others are hardly ever tested.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_NO_PICTURE = "not a picture in JPEG, PNG, WebP, BMP, GIF or TIFF"
# The decoded pictures of a set stay in memory together. More than this is refused before decoding, and from small files
# more than the second number and the third times their size: real pictures grow less, crafted ones by thousands.
MAX_PICTURE_BYTES = 4 * 2**30
SMALL_PICTURE_BYTES = 2**29
MOST_PICTURE_GROWTH = 100
# What decoding takes for each pixel at most, with the copies that are made on the way; measured.
_BYTES_A_PIXEL, _WEBP_BYTES_A_PIXEL = 16, 24
# A JPEG may be decoded smaller than it is, but the coefficients of a progressive one are kept.
_COEFFICIENT_BYTES = 8
# For all the pictures that are decoded at a time.
_DECODING_BYTES = 3 * 2**28
# Pictures that all share a size up to this keep it; others get DEFAULT_SIZE.
LARGEST_OWN_SIZE = 96
DEFAULT_SIZE = 64
_TOO_LARGE = (
    f"more pixels than the {_DECODING_BYTES // _BYTES_A_PIXEL / 1e6:.0f} million that are allowed; save it smaller"
)
_MOST_LISTED = 5
_AT_A_TIME = 32


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
            if matters and is_turned(image):
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


def check_memory(count: int, shape: tuple[int, int, int], *, packed: int, owner: str) -> None:
    """Raises a ValueError where so many pictures of this shape would take more memory than is allowed.

    Args:
        count: Number of pictures.
        shape: Height, width and channels to which they are decoded.
        packed: Bytes of all of them as they are stored.
        owner: Who asks, for the message.
    """
    size = count * math.prod(shape)
    allowed = min(MAX_PICTURE_BYTES, max(SMALL_PICTURE_BYTES, MOST_PICTURE_GROWTH * packed))
    if size > allowed:
        fits = math.isqrt(allowed // (count * shape[2]))
        raise bad_data(
            owner, f"{count} pictures of {shape[0]}×{shape[1]}×{shape[2]} would take {in_words(size)}, more than the "
            f"{in_words(allowed)} of memory that are allowed for {in_words(packed)} of pictures",
            f"Take fewer of them, or lower `image_size`; {fits} is the largest that fits.",
        )  # fmt: skip


def decode(pictures: Sequence[Picture], shape: tuple[int, int, int], *, owner: str) -> np.ndarray:
    """Returns the pictures in their order as uint8 of shape `(pictures, height, width, channels)`, 0..255.

    Raises:
        ValueError: If there are damaged pictures, which it names all up to five, or more than memory may hold.
    """
    # A file may hold a picture once and have it in many rows.
    different = {picture.content for picture in pictures}
    packed = sum(len(each) if isinstance(each, bytes) else each.stat().st_size for each in different)
    check_memory(len(pictures), shape, packed=packed, owner=owner)
    result = np.empty((len(pictures), *shape), np.uint8)
    memory = _Memory(_DECODING_BYTES)

    def fill(row: int) -> None:
        with _open(pictures[row]) as image, memory.taken(_decoding_bytes(image, shape)):
            result[row] = to_pixels(image, shape)

    _each(fill, range(len(pictures)), owner, names=pictures)
    return result


def conform(
    pictures: np.ndarray, shape: tuple[int | None, int | None, int | None], *, packed: int, owner: str
) -> np.ndarray:
    """Returns decoded pictures at the asked height, width and channels, each None where it stays.

    Args:
        pictures: uint8 of shape `(examples, height, width, 1 or 3)`, 0..255.
        shape: Height, width, channels.
        packed: Bytes of all of them as they are stored.
        owner: Who asks, for the message.

    Raises:
        ValueError: If the result would take more memory than is allowed.
    """
    height, width, channels = (
        own if asked is None else asked for asked, own in zip(shape, pictures.shape[1:], strict=True)
    )
    if pictures.shape[1:] == (height, width, channels):
        return pictures
    check_memory(len(pictures), (height, width, channels), packed=packed, owner=owner)
    pillow = _optional.require("PIL.Image", extra="train")
    result = np.empty((len(pictures), height, width, channels), np.uint8)
    for row, picture in enumerate(pictures):
        image = pillow.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
        result[row] = to_pixels(image, (height, width, channels))
    return result


class _Memory:
    """What threads share: each takes what it needs, and waits until others have given enough back."""

    def __init__(self, size: int):
        self._left = size
        self._given_back = threading.Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        with self._given_back:
            self._given_back.wait_for(lambda: self._left >= size)
            self._left -= size
        try:
            yield
        finally:
            with self._given_back:
                self._left += size
                self._given_back.notify_all()


def _open(picture: Picture) -> Any:
    """Returns the picture, opened and not decoded."""
    pillow = _optional.require("PIL.Image", extra="train")
    content = picture.content
    try:
        return pillow.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=FORMATS)
    except pillow.DecompressionBombError:
        raise ValueError(_TOO_LARGE) from None


def _decoding_bytes(image: Any, shape: tuple[int, int, int]) -> int:
    """Returns what decoding an opened picture for the shape takes at most.

    Raises:
        ValueError: If that is more than all pictures may take together.
    """
    kept = _COEFFICIENT_BYTES * math.prod(image.size) if "progressive" in image.info else 0
    shrink(image, shape)
    a_pixel = _WEBP_BYTES_A_PIXEL if image.format == "WEBP" else _BYTES_A_PIXEL
    size = kept + a_pixel * math.prod(image.size)
    if size > _DECODING_BYTES:
        raise ValueError(_TOO_LARGE)
    return size


def _each(function: Callable, items: Sequence, owner: str, names: Sequence[Picture] | None = None) -> list:
    """Returns the function of each item, called in threads, or raises one error that names every item it failed on."""
    unidentified = _optional.require("PIL", extra="train").UnidentifiedImageError

    def attempt(item: Any) -> tuple[Any, str]:
        try:
            return function(item), ""
        except unidentified:
            return None, _NO_PICTURE
        # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and others for damaged data.
        except Exception as error:
            return None, str(error) or type(error).__name__

    # Pillow warns of what it makes the best of, such as a tag that it does not understand.
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")
        # A task for each would take more memory than a small picture, and more time.
        parts = [items[start : start + _AT_A_TIME] for start in range(0, len(items), _AT_A_TIME)]
        results = [result for part in pool.map(lambda part: list(map(attempt, part)), parts) for result in part]
    failed = [
        f"{printable(picture.name)} ({printable(reason)})"
        for picture, (_, reason) in zip(names or items, results, strict=True)
        if reason
    ]
    if failed:
        listing = ", ".join(failed[:_MOST_LISTED]) + (", …" if len(failed) > _MOST_LISTED else "")
        few = "1 file is not a picture" if len(failed) == 1 else f"{len(failed)} files are not pictures"
        way_out = "Remove or replace it." if len(failed) == 1 else "Remove or replace them."
        raise bad_data(owner, f"{few} that can be read: {listing}", way_out)
    return [value for value, _ in results]
