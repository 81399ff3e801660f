"""`.npz` files: `x` and `y`, or `x_train`, `y_train`, `x_test`, `y_test`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from keras_residual._archive import Archive, ArchiveError
from keras_residual._errors import bad_data, listed
from keras_residual.data.columns import finite_numbers
from keras_residual.data.dataset import Dataset
from keras_residual.data.features import pick_features
from keras_residual.data.files import check_file, check_unpacked
from keras_residual.data.labels import choose_task, class_names, encode_classes, encode_numbers
from keras_residual.data.lazy import Inputs, LazyExamples, digests_of, subset
from keras_residual.data.lazy import parts as parts_of
from keras_residual.data.pictures import conform
from keras_residual.data.request import Request, source_name
from keras_residual.data.scratch import OpenFile, rows_of_file
from keras_residual.data.split import split_indices
from keras_residual.data.table_file import MOST_COLUMNS

_WAY_OUT = "Write it with numpy.savez, which does not compress, or take fewer examples."
_WRITE = "Write it with numpy.savez, from arrays of numbers or text."
_NOT_FOR = {2: "The data is a table.", 4: "The data is pictures."}
_PARTS = ("x_train", "y_train", "x_test", "y_test")


def load_npz(path: Path, request: Request) -> Dataset:
    """Returns the arrays of the file, split by seed where it has `x` and `y` only.

    `x` of rank 2 is a table whose columns are called `x0`, `x1`, …; of rank 3 and 4 pictures of 1 or of 1 or 3
    channels, the channels last. `y` has one label or number an example. Nothing in the file is unpickled.

    Raises:
        ValueError: If arrays are missing, of another shape or type, or hold values that cannot be used.
    """
    request.refuse("target", because="The answers are in `y`.")
    owner = request.owner
    names = array_names(path, owner=owner)
    own_test = set(_PARTS) <= set(names)
    if not own_test and not {"x", "y"} <= set(names):
        raise bad_data(
            owner, f"the file must hold `x` and `y`, or {', '.join(f'`{part}`' for part in _PARTS)}, but holds "
            f"{listed(names) or 'nothing'}",
        )  # fmt: skip
    parts = _PARTS if own_test else ("x", "y")
    lazy = {name: rows for name in parts if name[0] == "x" and (rows := _rows_on_disk(path, name, request)) is not None}
    arrays = read_arrays(path, [name for name in parts if name not in lazy], owner=owner)
    inputs: list[Inputs] = [lazy[name] if name in lazy else arrays[name] for name in parts[::2]]
    x, y = inputs[0], arrays[parts[1]]
    if x.ndim > 1:
        request.check_kind("table" if x.ndim == 2 else "pictures")
    y = _answers(y, x, "y", path, owner)
    task = choose_task(y, request.task)
    if task == "regression":
        request.refuse("classes", because="The task is regression.")
    classes = (request.classes or class_names(y, owner=owner)) if task == "classification" else ()
    encoded = encode_classes(y, classes, owner=owner) if classes else encode_numbers(y, owner=owner, what="y")
    x, features = _inputs(x, "x", path, request)
    if not own_test:
        rows, test_rows = split_indices(encoded, classes, request)
        x, x_test, encoded, encoded_test = subset(x, rows), subset(x, test_rows), encoded[rows], encoded[test_rows]
    else:
        x_test = inputs[1]
        y_test = _answers(arrays["y_test"], x_test, "y_test", path, owner)
        encoded_test = (
            encode_classes(y_test, classes, owner=owner, what="y_test: label")
            if classes
            else encode_numbers(y_test, owner=owner, what="y_test")
        )
        x_test, _ = _inputs(x_test, "x_test", path, request)
        if request.test_fraction == 1:
            x, encoded = subset(x, slice(0, 0)), encoded[:0]
    kind = "table" if features else "pictures"
    return Dataset(
        source_name(path), kind, task, x, encoded, x_test, encoded_test, classes, features, own_test=own_test
    )


def _rows_on_disk(path: Path, name: str, request: Request) -> LazyExamples | None:
    """Returns pictures or numbers that stay in the file, since they are too large for memory; None where they do not.

    Of a compressed file nothing can be read by its place, and what has another size or type than it is to have is made
    so in memory.
    """
    with _opened(path, request.owner) as archive:
        found = archive.place(f"{name}.npy")
    if found is None:
        return None
    start, shape, dtype = found
    size = math.prod(shape) * dtype.itemsize
    pictures = len(shape) == 4 and dtype == np.uint8 and shape[-1] in (1, 3)
    asked = [own if side is None else side for side, own in zip(request.picture_shape, shape[1:], strict=False)]
    table = len(shape) == 2 and dtype == np.float64 and not request.features and not request.drop
    if size <= request.memory or not (table or (pictures and tuple(asked) == shape[1:])):
        return None
    x = rows_of_file(OpenFile(path.open("rb")), start, shape, dtype)
    x.digests = np.empty(len(x), np.uint64)
    row = 0
    for part in parts_of(x):
        if table:
            finite_numbers(part, owner=request.owner, what=name, first=row)
        x.digests[row : row + len(part)] = digests_of(part)
        row += len(part)
    return x


def array_names(path: Path, *, owner: str) -> list[str]:
    """Returns the names of the arrays in the file.

    Raises:
        ValueError: If the file is damaged, or would take far more memory than it has bytes.
    """
    with _opened(path, owner) as archive:
        return [name.removesuffix(".npy") for name in archive.names]


def read_arrays(path: Path, names: Iterable[str], *, owner: str, way_out: str = _WRITE) -> dict[str, np.ndarray]:
    """Returns those of the named arrays that the file has: numbers, booleans or text.

    Args:
        path: The file.
        names: Names of arrays.
        owner: What is being read, for the message.
        way_out: What the message says to do about a damaged file.

    Raises:
        ValueError: As `array_names`, and if an array holds something else; Python objects would have to be unpickled.
    """
    with _opened(path, owner, way_out) as archive:
        return {name: archive.array(f"{name}.npy", kinds="biufcU") for name in names if f"{name}.npy" in archive.names}


@contextmanager
def _opened(path: Path, owner: str, way_out: str = _WRITE) -> Iterator[Archive]:
    check_file(path, owner=owner)
    try:
        with path.open("rb") as file:
            if file.read(6) == np.lib.format.MAGIC_PREFIX:
                raise ArchiveError("it holds one bare array")
        with Archive(path) as archive:
            yield archive
    except ArchiveError as error:
        raise bad_data(owner, f"the file {path} cannot be read as npz ({error})", way_out) from None


def as_pictures(x: np.ndarray, name: str, *, owner: str) -> np.ndarray:
    """Returns an array of pictures as uint8 of shape `(examples, height, width, channels)`, 0..255.

    Args:
        x: Shape `(examples, height, width)` or `(examples, height, width, 1 or 3)`; booleans, whole numbers 0..255,
            floats 0..1 or floats that are whole numbers 0..255.
        name: Name of the array, for the message.
        owner: Who asks, for the message.
    """
    if x.ndim == 3:
        x = x[..., None]
    if x.shape[-1] not in (1, 3):
        turned = (
            "The channels seem to come first: move them with numpy.moveaxis(x, 1, -1)." if x.shape[1] in (1, 3) else ""
        )
        raise bad_data(
            owner, f"pictures need 1 or 3 channels on the last axis, but {name} has shape {x.shape}", turned
        )  # fmt: skip
    if 0 in x.shape[1:]:
        raise bad_data(owner, f"pictures need one pixel at least, but {name} has shape {x.shape}")
    if x.dtype == np.uint8 or x.size == 0:
        return x.astype(np.uint8, copy=False)
    low, high = x.min(), x.max()
    result = np.empty(x.shape, np.uint8)
    for rows in _some_rows(x):
        if x.dtype.kind == "b" or (x.dtype.kind == "f" and low >= 0 and high <= 1):
            result[rows] = np.rint(x[rows] * np.float32(255))
        elif low >= 0 and high <= 255 and (x.dtype.kind in "iu" or np.all(x[rows] == np.rint(x[rows]))):
            result[rows] = x[rows]
        else:
            raise bad_data(
                owner, f"pictures must be whole numbers in 0..255 or floats in 0..1, but {name} is {x.dtype} from "
                f"{low} to {high}", "Scale it before writing the file.",
            )  # fmt: skip
    return result


def _some_rows(x: np.ndarray) -> Iterator[slice]:
    """Yields the rows in parts of some megabytes, so that no second copy of all of them is made on the way."""
    step = max(1, 2**22 // max(1, x[0].size))
    return (slice(start, start + step) for start in range(0, len(x), step))


def as_table(x: np.ndarray, name: str, *, path: Path, owner: str) -> np.ndarray:
    """Returns an array of shape `(examples, features)` as finite float64."""
    what = f"{name} as 64-bit floats"
    check_unpacked(8 * x.size, path.stat().st_size, owner=owner, what=what, way_out=_WAY_OUT)
    return finite_numbers(x, owner=owner, what=name)


def _inputs(x: Inputs, name: str, path: Path, request: Request) -> tuple[Inputs, tuple[str, ...]]:
    owner = request.owner
    if isinstance(x, LazyExamples):
        columns = tuple(f"x{column}" for column in range(x.shape[1])) if x.ndim == 2 else ()
        request.refuse(*(("image_size", "image_shape") if columns else ("features", "drop")), because=_NOT_FOR[x.ndim])
        return x, columns
    if x.dtype.kind not in "biuf" or x.ndim not in (2, 3, 4):
        raise bad_data(
            owner, f"{name} must hold numbers, of rank 2 for a table and 3 or 4 for pictures, but is {x.dtype} of "
            f"shape {x.shape}",
        )  # fmt: skip
    if x.ndim > 2:
        request.refuse("features", "drop", because="The data is pictures.")
        pictures = as_pictures(x, name, owner=owner)
        return conform(pictures, request.picture_shape, packed=path.stat().st_size, owner=owner), ()
    request.refuse("image_size", "image_shape", because="The data is a table.")
    if x.shape[1] > MOST_COLUMNS:
        raise bad_data(owner, f"{name} has {x.shape[1]} columns, and {MOST_COLUMNS} are allowed", "Take fewer.")
    columns = tuple(f"x{column}" for column in range(x.shape[1]))
    features = pick_features(columns, request, target=None)
    table = as_table(x, name, path=path, owner=owner)
    if features != columns:
        place = {column: index for index, column in enumerate(columns)}
        table = table[:, [place[column] for column in features]]
    return table, features


def _answers(y: np.ndarray, x: Inputs, name: str, path: Path, owner: str) -> np.ndarray:
    count = len(x) if x.ndim else 0
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        hint = "Of one-hot labels take y.argmax(axis=1)." if y.ndim == 2 else ""
        raise bad_data(owner, f"{name} must have one value an example, but has shape {y.shape}", hint)
    if len(y) != count or count == 0:
        raise bad_data(owner, f"{name} must have a value for each example, but has {len(y)} for {count} examples")
    if y.dtype.kind not in "biufU":
        raise bad_data(owner, f"{name} must hold numbers, booleans or text, but is {y.dtype}")
    # Sorting makes copies, each as wide as the longest label.
    size = path.stat().st_size
    check_unpacked(3 * y.nbytes, size, owner=owner, what=f"sorting the labels in {name}", way_out=_WAY_OUT)
    return y
