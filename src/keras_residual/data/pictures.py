"""Encoded pictures (files, bytes, pieces of files) to uint8 arrays: looked at first, then decoded in threads."""

from __future__ import annotations

import io
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_residual import _optional
from keras_residual._errors import bad_data, printable
from keras_residual.data.files import in_words
from keras_residual.data.lazy import Inputs, LazyExamples, Skipped, digests_of, in_threads
from keras_residual.data.pixels import GREY_MODES, Box, fit, in_channels, is_turned, shrink, to_pixels
from keras_residual.data.scratch import OpenFile

# The only formats that are opened, whatever a file is called. Pillow knows many more, of which some start other
# programs (EPS runs Ghostscript) and others are hardly ever tested.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_NO_PICTURE = "not a picture in JPEG, PNG, WebP, BMP, GIF or TIFF"
# Pictures of arrays and those that `predict` reads stay in memory together. More than this is refused before decoding,
# and from small files more than the second number and the third times their size: real pictures grow less, crafted ones
# by thousands.
MAX_PICTURE_BYTES = 4 * 2**30
SMALL_PICTURE_BYTES = 2**29
MOST_PICTURE_GROWTH = 100
# What decoding takes for each pixel at most, with the copies that are made on the way; measured.
_BYTES_A_PIXEL, _WEBP_BYTES_A_PIXEL = 16, 24
# A JPEG may be decoded smaller than it is, but the coefficients of a progressive one are kept.
_COEFFICIENT_BYTES = 8
# For all the pictures that are decoded at a time.
_DECODING_BYTES = 3 * 2**28
# Pictures that all share a size up to this keep it; others get DEFAULT_SIZE where no network says more.
LARGEST_OWN_SIZE = 96
DEFAULT_SIZE = 64
_TOO_LARGE = (
    f"more pixels than the {_DECODING_BYTES // _BYTES_A_PIXEL / 1e6:.0f} million that are allowed; save it smaller"
)
_MOST_LISTED = 5
_AT_A_TIME = 32


class Span(NamedTuple):
    """A part of a file that is open for reading: where in it the part begins, and its length in bytes."""

    file: OpenFile
    start: int
    length: int


class Picture(NamedTuple):
    """An encoded picture: how messages call it, and what holds it: a path, bytes, or a piece of a file."""

    name: str
    content: str | Path | bytes | Span


class Header(NamedTuple):
    """What a picture says of itself before it is decoded; height and width as they are shown."""

    height: int
    width: int
    grey: bool


def read_headers(pictures: Sequence[Picture], skipped: Skipped) -> list[Header | None]:
    """Returns the header of each picture; None of those that have none, which are named to `skipped`."""

    def read(picture: Picture) -> Header:
        with _open(picture) as image:
            width, height = image.size
            # Only here does it matter, and Pillow decodes a whole PNG to find its EXIF.
            matters = width != height and max(width, height) <= LARGEST_OWN_SIZE
            if matters and is_turned(image):
                width, height = height, width
            return Header(height, width, image.mode in GREY_MODES)

    headers: list[Header | None] = []
    for picture, (header, reason) in zip(pictures, _each(read, pictures), strict=True):
        if header is None:
            skipped.add(picture.name, reason)
        headers.append(header)
    return headers


def choose_shape(
    headers: Sequence[Header],
    asked: tuple[int | None, int | None, int | None],
    usual: tuple[int, int, str] | None = None,
) -> tuple[tuple[int, int, int], str]:
    """Returns height, width and channels for all pictures, and why: what was asked, else what network and headers say.

    Args:
        headers: Those of all pictures.
        asked: Height, width and channels, each None where nobody asked.
        usual: Height and width that the network has been made for, and what to say of them; None where it takes any.

    Returns:
        The shape, and a sentence. A size that all pictures share and that is at most `LARGEST_OWN_SIZE` goes before the
        network's, and where that has none it is `DEFAULT_SIZE` squared. There is one channel where all pictures are
        grey, else there are three.
    """
    height, width, channels = asked
    why = usual[2] if usual is not None and usual[:2] == (height, width) else "as asked"
    if height is None or width is None:
        sizes = {(header.height, header.width) for header in headers}
        shared = next(iter(sizes)) if len(sizes) == 1 else (math.inf, math.inf)
        if max(shared) <= LARGEST_OWN_SIZE:
            (height, width), why = shared, "the size that all of them have"
        elif usual is not None:
            height, width, why = usual
        else:
            height, width, why = DEFAULT_SIZE, DEFAULT_SIZE, "small, so that a first run is quick"
        why += "; --image-size N for another"
    if channels is None:
        channels = 1 if all(header.grey for header in headers) else 3
    shape = int(height), int(width), channels
    return shape, f"Pictures are read at {shape[0]}×{shape[1]}{' in grey' if channels == 1 else ''}: {why}."


class Decoder:
    """Reads encoded pictures at one shape, each by its place; what can be read no more is told to `skipped`.

    Args:
        pictures: The encoded pictures.
        shape: Height, width and channels.
        skipped: Is told of those that cannot be read.
    """

    def __init__(self, pictures: Sequence[Picture], shape: tuple[int, int, int], skipped: Skipped) -> None:
        self._pictures, self.shape, self._skipped = pictures, shape, skipped
        _quieten()

    def __call__(self, places: np.ndarray, boxes: Boxes | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the pictures as uint8 `(places, height, width, channels)`, and which of them could be read.

        Args:
            places: Their places.
            boxes: Function of a place, and of the height and width of the picture there, that returns the part of it
                that is taken; None for the middle.
        """
        result, readable = np.zeros((len(places), *self.shape), np.uint8), np.zeros(len(places), bool)

        def fill(row: int) -> None:
            picture, place = self._pictures[places[row]], int(places[row])
            box = None if boxes is None else partial(boxes, place)
            pixels, reason = _attempt(lambda: _pixels(picture, self.shape, box))
            if reason:
                self._skipped.add(picture.name, reason)
            else:
                result[row], readable[row] = pixels, True

        in_threads(fill, range(len(places)))
        self._skipped.check()
        return result, readable


Boxes = Callable[[int, int, int], Box]


def read_once(
    pictures: Sequence[Picture], shape: tuple[int, int, int], *, skipped: Skipped, budget: int
) -> tuple[Inputs, np.ndarray]:
    """Decodes each picture once and returns those that can be read, and which these are, as booleans.

    They stay in memory where all of them take `budget` bytes at most. Else they are decoded anew whenever they are
    asked for, and what stays is a digest of each.
    """
    decoder, count = Decoder(pictures, shape, skipped), len(pictures)
    step = max(1, min(_AT_A_TIME * 8, _DECODING_BYTES // 8 // math.prod(shape)))
    readable = np.zeros(count, bool)
    starts = range(0, count, step)
    if count * math.prod(shape) <= budget:
        x = np.empty((count, *shape), np.uint8)
        for start in starts:
            rows = np.arange(start, min(start + step, count))
            x[rows], readable[rows] = decoder(rows)
        return (x if readable.all() else x[readable]), readable
    digests = np.zeros(count, np.uint64)
    for start in starts:
        rows = np.arange(start, min(start + step, count))
        part, readable[rows] = decoder(rows)
        digests[rows] = digests_of(part)
    places = np.flatnonzero(readable)
    return LazyExamples(decoder, shape, np.uint8, places, digests[places]), readable


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
    packed = sum(map(_stored_bytes, {picture.content for picture in pictures}))
    check_memory(len(pictures), shape, packed=packed, owner=owner)
    result = np.empty((len(pictures), *shape), np.uint8)

    def fill(row: int) -> None:
        result[row] = _pixels(pictures[row], shape)

    reasons = [reason for _, reason in _each(fill, range(len(pictures)))]
    failed = [
        f"{printable(picture.name)} ({printable(reason)})"
        for picture, reason in zip(pictures, reasons, strict=True)
        if reason
    ]
    if failed:
        listing = ", ".join(failed[:_MOST_LISTED]) + (", …" if len(failed) > _MOST_LISTED else "")
        few = "1 file is not a picture" if len(failed) == 1 else f"{len(failed)} files are not pictures"
        way_out = "Remove or replace it." if len(failed) == 1 else "Remove or replace them."
        raise bad_data(owner, f"{few} that can be read: {listing}", way_out)
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
    result = np.empty((len(pictures), height, width, channels), np.uint8)
    for row, picture in enumerate(pictures):
        result[row] = fit(in_channels(picture, channels), (height, width))
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


_MEMORY = _Memory(_DECODING_BYTES)


def _pixels(picture: Picture, shape: tuple[int, int, int], box: Callable[[int, int], Box] | None = None) -> np.ndarray:
    with _open(picture) as image, _MEMORY.taken(_decoding_bytes(image, shape, whole=box is not None)):
        return to_pixels(image, shape, box)


def _open(picture: Picture) -> Any:
    """Returns the picture, opened and not decoded."""
    pillow = _optional.require("PIL.Image", extra="train")
    content: Any = picture.content
    if isinstance(content, Span):
        content = content.file.read(content.start, content.length)
    try:
        return pillow.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=FORMATS)
    except pillow.DecompressionBombError:
        raise ValueError(_TOO_LARGE) from None


def _stored_bytes(content: str | Path | bytes | Span) -> int:
    if isinstance(content, bytes):
        return len(content)
    return content.length if isinstance(content, Span) else Path(content).stat().st_size


def _decoding_bytes(image: Any, shape: tuple[int, int, int], *, whole: bool) -> int:
    """Returns what decoding an opened picture for the shape takes at most.

    Raises:
        ValueError: If that is more than all pictures may take together.
    """
    kept = _COEFFICIENT_BYTES * math.prod(image.size) if "progressive" in image.info else 0
    if not whole:
        shrink(image, shape)
    a_pixel = _WEBP_BYTES_A_PIXEL if image.format == "WEBP" else _BYTES_A_PIXEL
    size = kept + a_pixel * math.prod(image.size)
    if size > _DECODING_BYTES:
        raise ValueError(_TOO_LARGE)
    return size


def _each(function: Callable[[Any], Any], items: Sequence[Any]) -> list[tuple[Any, str]]:
    """Returns the function of each item and "", or None and what is wrong with it; called in threads."""
    # A task for each would take more memory than a small picture, and more time.
    parts = [items[start : start + _AT_A_TIME] for start in range(0, len(items), _AT_A_TIME)]
    _quieten()
    found = in_threads(lambda part: [_attempt(lambda item=item: function(item)) for item in part], parts)
    return [result for part in found for result in part]


def _attempt(function: Callable[[], Any]) -> tuple[Any, str]:
    """Returns what a function returns and "", or None and what is wrong with the picture that it reads."""
    try:
        return function(), ""
    except _optional.require("PIL", extra="train").UnidentifiedImageError:
        return None, _NO_PICTURE
    except (ImportError, MemoryError):
        raise
    except OSError as error:
        return None, error.strerror or str(error) or type(error).__name__
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and others for damaged data.
    except Exception as error:
        return None, str(error) or type(error).__name__


def _quieten() -> None:
    """Has Pillow not warn of what it makes the best of, such as a tag that it does not understand.

    Once and for all: what `warnings.catch_warnings` puts back, it puts back for every thread.
    """
    warnings.filterwarnings("ignore", module=r"(PIL|keras_residual\.data)\.")
