"""Pictures and their labels, from wherever they were found, to a data set: what is broken is left out and said."""

from __future__ import annotations

import math
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_residual._errors import bad_data, listed, shown
from keras_residual.data.dataset import Dataset
from keras_residual.data.files import in_words
from keras_residual.data.lazy import LazyExamples, Skipped, subset
from keras_residual.data.pictures import Header, Picture, choose_shape, read_headers, read_once
from keras_residual.data.request import Request, source_name
from keras_residual.data.split import split_indices

_MOST_CLASSES = 10


@dataclass(frozen=True)
class Part:
    """A part of the pictures, as the source has them.

    Args:
        name: What the source calls it.
        pictures: The encoded pictures.
        y: Their classes, int32, same length.
    """

    name: str
    pictures: Sequence[Picture]
    y: np.ndarray


def picture_set(
    path: Path,
    parts: Mapping[str, Part],
    classes: tuple[str, ...],
    request: Request,
    *,
    notes: tuple[str, ...] = (),
    said: tuple[str, ...] = (),
) -> Dataset:
    """Returns the pictures that can be read, at one size, and says what was found.

    Args:
        path: Where they are, for the name.
        parts: `"train"`, and `"validation"` and `"test"` where the source has such. What has no test part is split by
            seed, after broken pictures are left out.
        classes: Names of the classes in index order.
        request: Gives size, split, memory and how many may be broken.
        notes: What may have been meant otherwise.
        said: What else was found.

    Raises:
        ValueError: If more pictures are broken than may be, or none is left.
    """
    skipped = Skipped(request.most_broken, request.owner)
    order = [name for name in ("train", "validation", "test") if name in parts]
    if request.test_fraction == 1 and "test" in parts:
        order = ["test"]  # the others are not even looked at
    pictures = [picture for name in order for picture in parts[name].pictures]
    y = np.concatenate([parts[name].y for name in order])
    part = np.repeat(np.array(order), [len(parts[name].pictures) for name in order])
    headers = read_headers(pictures, skipped)
    ignored = _foreign(skipped, pictures)
    skipped.check()
    good = [row for row, header in enumerate(headers) if header is not None]
    if not good:
        raise _none_left(skipped, ignored, request)
    _check_classes(y, good, pictures, classes, skipped, request)
    known = [header for header in headers if header is not None]
    y, part, pictures = y[good], part[good], [pictures[row] for row in good]
    shape, why = choose_shape(known, request.picture_shape, request.usual_size)
    sizes = _sizes(known)
    if "test" not in parts:
        drawn_from = np.flatnonzero(part == "train") if request.test_fraction != 1 else np.arange(len(y))
        part[drawn_from[split_indices(y[drawn_from], classes, request)[1]]] = "test"
    # In the order in which they are used, so that a part is a view.
    rows = np.concatenate([np.flatnonzero(part == name) for name in ("train", "validation", "test")])
    y, part, pictures = y[rows], part[rows], [pictures[row] for row in rows]
    x, readable = read_once(pictures, shape, skipped=skipped, budget=request.memory)
    y, part = y[readable], part[readable]
    learn = np.flatnonzero(part != "test")
    test = slice(len(learn), len(y))
    decoded = in_words(len(y) * math.prod(shape))
    found = (
        f"Found {len(y)} pictures of {len(classes)} classes, {sizes}: {_counts(y, classes)}.",
        f"Validation: {_where(parts, 'validation', request)}. Test: {_where(parts, 'test', request)}.",
        why,
        f"Read from the disk as they are needed, since {decoded} would not fit into the {in_words(request.memory)} of "
        "data.memory."
        if isinstance(x, LazyExamples)
        else f"Held in memory: {decoded}.",
        *said,
        *_left_out(skipped, ignored),
    )
    return Dataset(
        source_name(path), "pictures", "classification", subset(x, slice(0, len(learn))), y[learn], subset(x, test),
        y[test], classes, (), own_test="test" in parts, notes=notes, found=found, skipped=skipped,
        choose=np.flatnonzero(part[learn] == "validation") if "validation" in order else None,
    )  # fmt: skip


def _where(parts: Mapping[str, Part], name: str, request: Request) -> str:
    if name in parts:
        return f"{parts[name].name} of the data"
    if name == "test":
        return f"drawn by seed {request.seed}, {request.test_fraction:.3g} of each class"
    return "drawn by seed from what is learned from"


def _sizes(headers: Sequence[Header]) -> str:
    smallest = min(headers, key=lambda header: header.height * header.width)
    largest = max(headers, key=lambda header: header.height * header.width)
    low, high = (f"{header.height}×{header.width}" for header in (smallest, largest))
    return f"{low} pixels" if low == high else f"{low} to {high} pixels"


def _counts(y: np.ndarray, classes: tuple[str, ...]) -> str:
    counts = np.bincount(y, minlength=len(classes))
    first = [f"{name} {count}" for name, count in zip(classes, counts, strict=True)][:_MOST_CLASSES]
    more = f" and {len(classes) - len(first)} more of {counts.min()} to {counts.max()}" if len(classes) > 10 else ""
    return f"{listed(first, _MOST_CLASSES)}{more}"


def _foreign(skipped: Skipped, pictures: Sequence[Picture]) -> tuple[str, ...]:
    """Returns names of files that never claimed to be pictures, which do not count as broken."""
    files = {picture.name for picture in pictures if isinstance(picture.content, str)} if skipped.reasons else set()
    foreign = tuple(name for name in skipped.reasons if name in files and not _is_called_picture(name))
    for name in foreign:
        skipped.ignore(name)
    return foreign


def _is_called_picture(name: str) -> bool:
    path = Path(name)
    kind = mimetypes.guess_type(path.name)[0] or ""
    return kind.startswith("image/") or not path.suffix


def _left_out(skipped: Skipped, ignored: tuple[str, ...]) -> list[str]:
    lines = []
    for what, names in (
        ("no picture and ignored", list(ignored)),
        ("skipped, since it cannot be read", list(skipped.reasons)),
    ):
        if names:
            one, example = len(names) == 1, shown(names[0])
            text = what if one else what.replace("no picture", "no pictures").replace("it cannot", "they cannot")
            lines.append(f"{len(names)} file{' is' if one else 's are'} {text}{':' if one else ', such as'} {example}.")
    return lines


def _check_classes(
    y: np.ndarray,
    good: Sequence[int],
    pictures: Sequence[Picture],
    classes: tuple[str, ...],
    skipped: Skipped,
    request: Request,
) -> None:
    """Raises where a class had pictures and has none any more."""
    for label in np.setdiff1d(y, y[good]):
        first = pictures[int(np.argmax(y == label))].name
        raise bad_data(
            request.owner, f"no picture of the class {shown(classes[label])} can be read, such as "
            f"{skipped.named(first)}", "Replace them or remove the class.",
        )  # fmt: skip


def _none_left(skipped: Skipped, ignored: tuple[str, ...], request: Request) -> ValueError:
    names = [*skipped.reasons, *ignored]
    return bad_data(
        request.owner, f"none of {len(names)} files is a picture that can be read, such as {shown(names[0])}",
        "Pictures are JPEG, PNG, WebP, BMP, GIF or TIFF.",
    )  # fmt: skip
