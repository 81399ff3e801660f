"""`.npz` files: `x` and `y`, or `x_train`, `y_train`, `x_test`, `y_test`."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from keras_residual.data.dataset import Dataset
from keras_residual.data.features import pick_features
from keras_residual.data.labels import choose_task, class_names, encode_classes, encode_numbers
from keras_residual.data.pixels import conform
from keras_residual.data.request import Request, source_name
from keras_residual.data.split import split_indices

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
    arrays = read_arrays(path, owner=owner)
    if set(_PARTS) <= set(arrays):
        x, y, x_test, y_test = (arrays[part] for part in _PARTS)
    elif {"x", "y"} <= set(arrays):
        x, y, x_test, y_test = arrays["x"], arrays["y"], None, None
    else:
        raise ValueError(
            f"{owner}: the file must hold `x` and `y`, or {', '.join(f'`{part}`' for part in _PARTS)}, "
            f"but holds {', '.join(arrays) or 'nothing'}."
        )
    y = _answers(y, len(x), "y", owner)
    task = choose_task(y, request.task)
    if task == "regression":
        request.refuse("classes", because="The task is regression.")
    classes = (request.classes or class_names(y)) if task == "classification" else ()
    encoded = encode_classes(y, classes, owner=owner) if classes else encode_numbers(y, owner=owner)
    x, features = _inputs(x, "x", request)
    if x_test is None or y_test is None:
        rows, test_rows = split_indices(encoded, classes, request)
        x, x_test, encoded, encoded_test = x[rows], x[test_rows], encoded[rows], encoded[test_rows]
    else:
        y_test = _answers(y_test, len(x_test), "y_test", owner)
        encoded_test = (
            encode_classes(y_test, classes, owner=owner, what="y_test: label")
            if classes
            else encode_numbers(y_test, owner=owner, what="y_test")
        )
        x_test, _ = _inputs(x_test, "x_test", request)
    kind = "table" if features else "pictures"
    return Dataset(source_name(path), kind, task, x, encoded, x_test, encoded_test, classes, features)


def read_arrays(path: Path, *, owner: str) -> dict[str, np.ndarray]:
    """Returns all arrays of the file.

    Raises:
        ValueError: If the file is damaged or holds Python objects, which are pickled.
    """
    try:
        # NumPy leaves a file open that turns out to be damaged, unless it is opened here.
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                raise ValueError("it holds one bare array")
            return {name: arrays[name] for name in arrays.files}
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        raise ValueError(
            f"{owner}: the file {path} cannot be read as npz ({error}). "
            f"Write it with numpy.savez, from arrays of numbers or text."
        ) from None


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
            " The channels seem to come first: move them with numpy.moveaxis(x, 1, -1)." if x.shape[1] in (1, 3) else ""
        )
        raise ValueError(
            f"{owner}: pictures need 1 or 3 channels on the last axis, but {name} has shape {x.shape}.{turned}"
        )
    if x.dtype == np.uint8 or x.size == 0:
        return x.astype(np.uint8)
    low, high = x.min(), x.max()
    if x.dtype.kind == "b" or (x.dtype.kind == "f" and low >= 0 and high <= 1):
        return np.rint(x * np.float32(255)).astype(np.uint8)
    if x.dtype.kind in "iuf" and low >= 0 and high <= 255 and np.all(x == np.rint(x)):
        return x.astype(np.uint8)
    raise ValueError(
        f"{owner}: pictures must be whole numbers in 0..255 or floats in 0..1, but {name} is {x.dtype} "
        f"from {low} to {high}. Scale it before writing the file."
    )


def as_table(x: np.ndarray, name: str, *, owner: str) -> np.ndarray:
    """Returns an array of shape `(examples, features)` as finite float32."""
    with np.errstate(over="ignore"):
        numbers = x.astype(np.float32)
    wrong = np.argwhere(~np.isfinite(numbers))
    if len(wrong):
        row, column = wrong[0]
        raise ValueError(
            f"{owner}: {name} must hold finite numbers, but has {x[row, column]} in row {row + 1}, column 'x{column}'. "
            f"Correct the value or remove the row."
        )
    return numbers


def _inputs(x: np.ndarray, name: str, request: Request) -> tuple[np.ndarray, tuple[str, ...]]:
    owner = request.owner
    if x.dtype.kind not in "biuf" or x.ndim not in (2, 3, 4):
        raise ValueError(
            f"{owner}: {name} must hold numbers, of rank 2 for a table and 3 or 4 for pictures, "
            f"but is {x.dtype} of shape {x.shape}."
        )
    if x.ndim > 2:
        request.refuse("features", "drop", because="The data is pictures.")
        return conform(as_pictures(x, name, owner=owner), request.picture_shape), ()
    request.refuse("image_size", "image_shape", because="The data is a table.")
    columns = tuple(f"x{column}" for column in range(x.shape[1]))
    features = pick_features(columns, request, target=None)
    return as_table(x, name, owner=owner)[:, [columns.index(column) for column in features]], features


def _answers(y: np.ndarray, count: int, name: str, owner: str) -> np.ndarray:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        hint = " Of one-hot labels take y.argmax(axis=1)." if y.ndim == 2 else ""
        raise ValueError(f"{owner}: {name} must have one value an example, but has shape {y.shape}.{hint}")
    if len(y) != count or count == 0:
        raise ValueError(f"{owner}: {name} must have a value for each example, but has {len(y)} for {count} examples.")
    if y.dtype.kind not in "biufU":
        raise ValueError(f"{owner}: {name} must hold numbers, booleans or text, but is {y.dtype}.")
    return y
