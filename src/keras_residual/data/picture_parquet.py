"""Parquet in the Hugging Face picture layout: a column of encoded pictures and one of labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from keras_residual import _optional
from keras_residual._errors import did_you_mean
from keras_residual.data.columns import check_complete
from keras_residual.data.dataset import Dataset
from keras_residual.data.labels import class_names, encode_classes
from keras_residual.data.pictures import Picture, check_memory, choose_shape, decode, read_headers
from keras_residual.data.request import Request, source_name
from keras_residual.data.split import split_indices
from keras_residual.data.tables import target_values


def picture_column(table: Any) -> str | None:
    """Returns the first column of `struct{bytes: binary, …}`, which holds pictures; None where there is none."""
    types = _optional.require("pyarrow", extra="train").types
    for field in table.schema:
        if types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            content = field.type.field("bytes").type
            if types.is_binary(content) or types.is_large_binary(content):
                return field.name
    return None


def picture_dataset(path: Path, train: Any, test: Any | None, request: Request) -> Dataset:
    """Returns the pictures of one table split by seed, or of two as they are.

    The label column is the target, or `label`, or the only other column. Its class names come from the schema's
    Hugging Face metadata where they are there, else from the labels.

    Raises:
        ValueError: If there is no label column, a label has no class, or a picture is missing or damaged.
    """
    request.refuse("features", "drop", because="The data is pictures.")
    owner = request.owner
    if request.task == "regression":
        raise ValueError(f"{owner}: pictures have classes here, so the task is classification.")
    label = _label_column(train, request)
    names = _metadata_names(train, label)
    values = target_values(train, label, owner=owner)
    classes = request.classes or names or class_names(values)
    y = _encode(values, names, classes, label, owner)
    pictures, test_pictures, y_test = table_pictures(train, owner=owner), [], y[:0]
    if test is not None:
        test_owner = f"{owner} (test)"
        if label not in test.column_names or picture_column(test) is None:
            raise ValueError(f"{test_owner}: the columns must be those of the training table.")
        y_test = _encode(target_values(test, label, owner=test_owner), names, classes, label, test_owner)
        test_pictures = table_pictures(test, owner=test_owner)
    shape = choose_shape(read_headers(pictures + test_pictures, owner=owner), request.picture_shape)
    if test is None:
        rows, test_rows = split_indices(y, classes, request)
        y, y_test = y[rows], y[test_rows]
        pictures, test_pictures = [pictures[row] for row in rows], [pictures[row] for row in test_rows]
    check_memory(len(pictures) + len(test_pictures), shape, owner=owner)
    x, x_test = decode(pictures, shape, owner=owner), decode(test_pictures, shape, owner=owner)
    return Dataset(source_name(path), "pictures", "classification", x, y, x_test, y_test, classes, ())


def table_pictures(table: Any, *, owner: str) -> list[Picture]:
    """Returns the encoded pictures, each called by its path and its row.

    Raises:
        ValueError: If a row has no picture.
    """
    name = picture_column(table)
    column = table.column(name)
    way_out = "Remove the row, or write the bytes of the pictures into the file."
    check_complete(column, str(name), owner=owner, way_out=way_out)
    pictures: list[Picture] = []
    for chunk in column.chunks:
        has_path = chunk.type.get_field_index("path") >= 0
        paths = chunk.field("path").to_pylist() if has_path else [None] * len(chunk)
        for path, content in zip(paths, chunk.field("bytes").to_pylist(), strict=True):
            row = len(pictures) + 1
            if content is None:
                raise ValueError(f"{owner}: column {name!r} has no bytes in row {row}. {way_out}")
            pictures.append(Picture(f"row {row}: {path}" if path else f"row {row}", content))
    return pictures


def _label_column(table: Any, request: Request) -> str:
    others = [name for name in table.column_names if name != picture_column(table)]
    if request.target is not None:
        if request.target not in others:
            raise ValueError(
                f"{request.owner}: there is no target column {request.target!r}.{did_you_mean(request.target, others)}"
            )
        return request.target
    if "label" in others:
        return "label"
    if len(others) == 1:
        return others[0]
    raise ValueError(
        f"{request.owner}: which column holds the label of a picture? Give it with --target. "
        f"The columns are: {', '.join(others) if others else 'none beside the pictures'}."
    )


def _metadata_names(table: Any, label: str) -> tuple[str, ...]:
    """Returns the names of the Hugging Face `ClassLabel`, `()` where the file has none."""
    try:
        feature = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"][label]
        return tuple(str(name) for name in feature["names"])
    except (KeyError, TypeError, ValueError):
        return ()


def _encode(values: np.ndarray, names: tuple[str, ...], classes: tuple[str, ...], label: str, owner: str) -> np.ndarray:
    what = f"column {label!r}:"
    if names and values.dtype.kind in "iu":
        outside = np.flatnonzero((values < 0) | (values >= len(names)))
        if len(outside):
            raise ValueError(
                f"{owner}: {what} label {values[outside[0]]} in row {outside[0] + 1} has no class: the file names "
                f"{len(names)}, so labels run from 0 to {len(names) - 1}. Correct the label or remove the row."
            )
        values = np.array(names)[values]
    return encode_classes(values, classes, owner=owner, what=what)
