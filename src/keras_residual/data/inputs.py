"""Unlabelled pictures or rows for a trained model: same shape, same columns as it was trained on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from keras_residual._errors import bad_argument, bad_data, listed, shown
from keras_residual._places import expanded
from keras_residual.data.columns import TABLE_SUFFIXES, feature_matrix, open_table
from keras_residual.data.features import check_columns
from keras_residual.data.files import check_file, reading
from keras_residual.data.folders import picture_files
from keras_residual.data.npz import array_names, as_pictures, as_table, read_arrays
from keras_residual.data.picture_parquet import picture_column, table_pictures
from keras_residual.data.pictures import Picture, conform, decode


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
        Tables: float64 of shape `(rows, features)`, named `PATH:ROW` from row 1.
        Parts of a name that are not UTF-8 are shown as escapes.

    Raises:
        ValueError: If a path is not there, holds nothing, or its content does not fit the model or into memory.
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
        path, owner = expanded(text), f"Inputs {shown(text)}"
        with reading(owner, less="Name less at a time."):
            if not path.exists():
                raise bad_data(owner, "there is no such file or folder")
            if image_shape and kind == "pictures":
                x, own = _pictures(path, text, image_shape, owner)
            else:
                x, own = _rows(path, text, features, owner)
        blocks.append(x)
        names += own
    return np.concatenate(blocks), tuple(os.fsencode(name).decode(errors="backslashreplace") for name in names)


def _pictures(path: Path, text: str, shape: tuple[int, int, int], owner: str) -> tuple[np.ndarray, list[str]]:
    suffix = path.suffix.lower()
    if path.is_file() and suffix == ".npz":
        x = as_pictures(_array(path, owner, ranks=(3, 4), what="pictures"), "x", owner=owner)
        names = [f"{text}:{row + 1}" for row in range(len(x))]
        return conform(x, shape, packed=path.stat().st_size, owner=owner), names
    if path.is_file() and suffix == ".parquet":
        table = open_table(path, owner=owner)
        if picture_column(table) is None:
            raise bad_data(owner, "the model needs pictures, and the file has no column of them")
        pictures = table_pictures(table)
        names = [f"{text}:{row + 1}" for row in range(len(pictures))]
    else:
        if not path.is_dir():
            check_file(path, owner=owner)
        pictures = picture_files(path) if path.is_dir() else [Picture(text, path)]
        names = [picture.name for picture in pictures]
    if not pictures:
        raise bad_data(owner, "the folder holds no pictures")
    return decode(pictures, shape, owner=owner), names


def _rows(path: Path, text: str, features: tuple[str, ...], owner: str) -> tuple[np.ndarray, list[str]]:
    suffix = path.suffix.lower()
    if path.is_dir() or suffix not in (*TABLE_SUFFIXES, ".npz"):
        raise bad_data(owner, "the model needs a table, which is a .csv, .parquet or .npz file")
    if suffix == ".npz":
        x = _array(path, owner, ranks=(2,), what="a table")
        columns = {f"x{column}": column for column in range(x.shape[1])}
        check_columns(features, tuple(columns), owner=owner)
        x = as_table(x[:, [columns[name] for name in features]], "x", path=path, owner=owner)
    else:
        table = open_table(path, owner=owner)
        check_columns(features, table.names, owner=owner)
        x = feature_matrix(table, features, may_drop=False)
    return x, [f"{text}:{row + 1}" for row in range(len(x))]


def _array(path: Path, owner: str, *, ranks: tuple[int, ...], what: str) -> np.ndarray:
    x = read_arrays(path, ["x"], owner=owner).get("x")
    if x is None or x.ndim not in ranks or x.dtype.kind not in "biuf" or len(x) == 0:
        holds = f"x {x.dtype} {x.shape}" if x is not None else listed(array_names(path, owner=owner)) or "nothing"
        ranked = " or ".join(str(rank) for rank in ranks)
        raise bad_data(
            owner, f"the model needs {what}: numbers of rank {ranked} called `x`. The file holds {holds}"
        )  # fmt: skip
    return x
