"""Parquet in the Hugging Face picture layout: a column of encoded pictures and one of labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from keras_residual import _optional
from keras_residual._errors import bad_data, did_you_mean, listed, shown
from keras_residual._json import parse
from keras_residual._order import composed
from keras_residual.data.dataset import Dataset
from keras_residual.data.labels import check_names, class_names, encode_classes
from keras_residual.data.picture_set import Part, picture_set
from keras_residual.data.pictures import Picture, Span
from keras_residual.data.request import Request
from keras_residual.data.scratch import scratch_file
from keras_residual.data.table_file import TableFile
from keras_residual.data.tables import target_values

_SMALL_FILE = 2**26
"""Bytes up to which the encoded pictures of a file stay in memory until they are decoded."""


def picture_column(file: TableFile) -> str | None:
    """Returns the first column of `struct{bytes: binary, …}`, which holds pictures; None where there is none."""
    types = _optional.require("pyarrow", extra="train").types
    for field in file.schema:
        if types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            content = field.type.field("bytes").type
            if types.is_binary(content) or types.is_large_binary(content):
                return field.name
    return None


def picture_dataset(path: Path, train: TableFile, others: Mapping[str, TableFile], request: Request) -> Dataset:
    """Returns the pictures of one table split by seed, or of several as they are.

    The label column is the target, or `label`, or the only other column. Its class names come from the schema's
    Hugging Face metadata where they are there, else from the labels.

    Raises:
        ValueError: If there is no label column, a label has no class, or more pictures are broken than may be.
    """
    request.check_kind("pictures")
    request.refuse("features", "drop", because="The data is pictures.")
    owner = request.owner
    if request.task == "regression":
        raise bad_data(owner, "pictures have classes here, so the task is classification")
    label = label_column(train, request, beside=picture_column(train))
    names = _metadata_names(train, label)
    values = target_values(train, label)
    classes = request.classes or names or class_names(values, owner=owner)
    y = _encode(values, names, classes, label, owner)
    parts = {"train": Part(str(train.path.name), table_pictures(train), y)}
    for part, table in others.items():
        if label not in table.names or picture_column(table) is None:
            raise bad_data(table.owner, "the columns must be those of the training table")
        own_names = _metadata_names(table, label) or names
        own = _encode(target_values(table, label), own_names, classes, label, table.owner)
        parts[part] = Part(table.path.name, table_pictures(table), own)
    return picture_set(path, parts, classes, request)


def table_pictures(file: TableFile) -> list[Picture]:
    """Returns the encoded pictures, each called by its path and its row; a row without one is a broken one.

    A file of more than some bytes has them copied, a row group at a time, to a scratch file, from which each can be
    read by itself.
    """
    if file.size <= _SMALL_FILE:
        return [Picture(name, content) for name, content in _encoded(file)]
    with scratch_file(file.owner) as scratch:
        pictures, start = [], 0
        for name, content in _encoded(file):
            scratch.write(content)
            pictures.append(Picture(name, Span(scratch, start, len(content))))
            start += len(content)
    return pictures


def _encoded(file: TableFile) -> Iterator[tuple[str, bytes]]:
    name, row = str(picture_column(file)), 0
    for rows, batch, wrong in file.batches([name]):
        if batch is None:
            yield from ((f"row {row + 1 + each} of {file.path.name} ({wrong})", b"") for each in range(rows))
            row += rows
            continue
        column = batch.column(0)
        # `flatten` sees to the part of a longer array that this may be; `field` does not.
        parts = dict(zip([field.name for field in column.type], column.flatten(), strict=True))
        paths = parts["path"].to_pylist() if "path" in parts else [None] * rows
        for path, content in zip(paths, parts["bytes"], strict=True):
            row += 1
            yield f"row {row}: {path}" if path else f"row {row}", content.as_py() or b""


def label_column(file: TableFile, request: Request, *, beside: str | None) -> str:
    """Returns the name of the column of labels, which is the target, or `label`, or the only one beside the pictures'.

    Raises:
        ValueError: If there is no such column; lists the columns.
    """
    others = [name for name in file.names if name != beside]
    if request.target is not None:
        if request.target not in others:
            raise bad_data(
                request.owner, f"there is no target column {shown(request.target)}",
                did_you_mean(request.target, others).strip(),
            )  # fmt: skip
        return request.target
    if "label" in others:
        return "label"
    if len(others) == 1:
        return others[0]
    raise bad_data(
        request.owner, "which column holds the label of a picture? Give it with --target",
        f"The columns are: {listed(others, 30) if others else 'none beside the pictures'}.",
    )  # fmt: skip


def _metadata_names(file: TableFile, label: str) -> tuple[str, ...]:
    """Returns the names of the Hugging Face `ClassLabel`, `()` where the file has none.

    Raises:
        ValueError: If it has some that cannot be understood: labels without their names would be other classes.
    """
    text = (file.schema.metadata or {}).get(b"huggingface")
    if text is None:
        return ()
    way_out = "Write the file again, for example with the `datasets` library, or without the metadata."
    try:
        features = parse(text)["info"]["features"]
        feature = {composed(name): value for name, value in features.items()}[label]
    except (KeyError, TypeError, AttributeError):
        return ()
    except ValueError as error:
        what = f"the metadata 'huggingface' of {file.path} cannot be read: {error}"
        raise bad_data(file.owner, what, way_out) from None
    names = feature.get("names") if isinstance(feature, dict) else None
    if names is None:
        return ()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        what = f"the metadata of {file.path} must list names of classes, and has {shown(names)}"
        raise bad_data(file.owner, what, way_out)
    names = tuple(map(composed, names))
    check_names(names, owner=file.owner)
    return names


def _encode(values: np.ndarray, names: tuple[str, ...], classes: tuple[str, ...], label: str, owner: str) -> np.ndarray:
    what = f"column {shown(label)}:"
    if names and values.dtype.kind in "iu":
        outside = np.flatnonzero((values < 0) | (values >= len(names)))
        if len(outside):
            raise bad_data(
                owner, f"{what} label {values[outside[0]]} in row {outside[0] + 1} has no class: the file names "
                f"{len(names)}, so labels run from 0 to {len(names) - 1}", "Correct the label or remove the row.",
            )  # fmt: skip
        values = np.array(names, object)[values]
    return encode_classes(values, classes, owner=owner, what=what)
