"""Unlabelled pictures or rows for a trained model: same shape, same columns as it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from keras_residual._errors import bad_argument, did_you_mean
from keras_residual.data.columns import TABLE_SUFFIXES, feature_matrix, read_table
from keras_residual.data.folders import picture_files
from keras_residual.data.npz import as_pictures, as_table, read_arrays
from keras_residual.data.picture_parquet import picture_column, table_pictures
from keras_residual.data.pictures import Picture, check_memory, decode
from keras_residual.data.pixels import conform


def load_inputs(
    paths: Sequence[str],
    *,
    kind: Literal["pictures", "table"],
    image_shape: tuple[int, int, int] | None = None,
    features: tuple[str, ...] = (),
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns the examples of all paths in order, and a name for each.

    Args:
        paths: For pictures: files, folders (at any depth, in natural order), `.parquet` of pictures, `.npz` with `x`.
            For tables: `.csv`, `.parquet`, `.npz` with `x`; columns beside the features are passed over.
        kind: What the model was trained on.
        image_shape: Height, width and channels of its pictures.
        features: Its columns in order.

    Returns:
        Pictures: uint8 of shape `(examples, height, width, channels)`, 0..255, named by their paths.
        Tables: float32 of shape `(rows, features)`, named `PATH:ROW` from row 1.

    Raises:
        ValueError: If a path is not there, holds nothing, or its content does not fit.
    """
    if not paths:
        raise bad_argument("Inputs", "paths", "one path at least", paths)
    if kind == "pictures" and image_shape is None:
        raise bad_argument("Inputs", "image_shape", "given for pictures", image_shape)
    if kind == "table" and not features:
        raise bad_argument("Inputs", "features", "given for tables", features)
    blocks: list[np.ndarray] = []
    names: list[str] = []
    for text in paths:
        path = Path(text).expanduser()
        if not path.exists():
            raise ValueError(f"Inputs {text!r}: there is no such file or folder.")
        x, own = (
            _pictures(path, text, image_shape) if image_shape and kind == "pictures" else _rows(path, text, features)
        )
        blocks.append(x)
        names += own
    return np.concatenate(blocks), tuple(names)


def _pictures(path: Path, text: str, shape: tuple[int, int, int]) -> tuple[np.ndarray, list[str]]:
    owner = f"Inputs {text!r}"
    suffix = path.suffix.lower()
    if path.is_file() and suffix == ".npz":
        x = _array(path, owner, ranks=(3, 4), what="pictures")
        return conform(as_pictures(x, "x", owner=owner), shape), [f"{text}:{row + 1}" for row in range(len(x))]
    if path.is_file() and suffix == ".parquet":
        table = read_table(path, owner=owner)
        if picture_column(table) is None:
            raise ValueError(f"{owner}: the model needs pictures, and the file has no column of them.")
        pictures = table_pictures(table, owner=owner)
        names = [f"{text}:{row + 1}" for row in range(len(pictures))]
    else:
        pictures = picture_files(path) if path.is_dir() else [Picture(text, path)]
        names = [picture.name for picture in pictures]
    if not pictures:
        raise ValueError(f"{owner}: the folder holds no pictures.")
    check_memory(len(pictures), shape, owner=owner)
    return decode(pictures, shape, owner=owner), names


def _rows(path: Path, text: str, features: tuple[str, ...]) -> tuple[np.ndarray, list[str]]:
    owner = f"Inputs {text!r}"
    suffix = path.suffix.lower()
    if path.is_dir() or suffix not in (*TABLE_SUFFIXES, ".npz"):
        raise ValueError(f"{owner}: the model needs a table, which is a .csv, .parquet or .npz file.")
    if suffix == ".npz":
        x = as_table(_array(path, owner, ranks=(2,), what="a table"), "x", owner=owner)
        columns = [f"x{column}" for column in range(x.shape[1])]
        _check_columns(columns, features, owner)
        x = x[:, [columns.index(name) for name in features]]
    else:
        table = read_table(path, owner=owner)
        _check_columns(table.column_names, features, owner)
        x = feature_matrix(table, features, owner=owner, may_drop=False)
    return x, [f"{text}:{row + 1}" for row in range(len(x))]


def _check_columns(columns: list[str], features: tuple[str, ...], owner: str) -> None:
    for name in features:
        if name not in columns:
            raise ValueError(f"{owner}: the model needs the column {name!r}.{did_you_mean(name, columns)}")


def _array(path: Path, owner: str, *, ranks: tuple[int, ...], what: str) -> np.ndarray:
    arrays = read_arrays(path, owner=owner)
    x = arrays.get("x")
    if x is None or x.ndim not in ranks or x.dtype.kind not in "biuf" or len(x) == 0:
        holds = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items()) or "nothing"
        ranked = " or ".join(str(rank) for rank in ranks)
        raise ValueError(
            f"{owner}: the model needs {what}: numbers of rank {ranked} called `x`. The file holds {holds}."
        )
    return x
