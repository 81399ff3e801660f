"""Parquet in the Hugging Face picture layout: a column of encoded pictures and one of labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from keras_residual import _optional
from keras_residual._errors import bad_data, did_you_mean, listed, shown
from keras_residual._json import parse
from keras_residual._order import composed
from keras_residual.data.columns import TableFile, check_complete
from keras_residual.data.dataset import Dataset
from keras_residual.data.labels import check_names, class_names, encode_classes
from keras_residual.data.pictures import Picture, choose_shape, decode, read_headers
from keras_residual.data.request import Request, source_name
from keras_residual.data.split import split_indices
from keras_residual.data.tables import target_values


def picture_column(file: TableFile) -> str | None:
    """Returns the first column of `struct{bytes: binary, …}`, which holds pictures; None where there is none."""
    types = _optional.require("pyarrow", extra="train").types
    for field in file.schema:
        if types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            content = field.type.field("bytes").type
            if types.is_binary(content) or types.is_large_binary(content):
                return field.name
    return None


def picture_dataset(path: Path, train: TableFile, test: TableFile | None, request: Request) -> Dataset:
    """Returns the pictures of one table split by seed, or of two as they are.

    The label column is the target, or `label`, or the only other column. Its class names come from the schema's
    Hugging Face metadata where they are there, else from the labels.

    Raises:
        ValueError: If there is no label column, a label has no class, or a picture is missing or damaged.
    """
    request.check_kind("pictures")
    request.refuse("features", "drop", because="The data is pictures.")
    owner = request.owner
    if request.task == "regression":
        raise bad_data(owner, "pictures have classes here, so the task is classification")
    label = _label_column(train, request)
    names = _metadata_names(train, label)
    values = target_values(train, label)
    classes = request.classes or names or class_names(values, owner=owner)
    y = _encode(values, names, classes, label, owner)
    test_pictures: list[Picture] = []
    y_test = y[:0]
    if test is not None:
        if label not in test.names or picture_column(test) is None:
            raise bad_data(test.owner, "the columns must be those of the training table")
        test_names = _metadata_names(test, label) or names
        y_test = _encode(target_values(test, label), test_names, classes, label, test.owner)
        test_pictures = table_pictures(test)
    # Where all is for testing, the training pictures are not even looked at.
    unused = test is not None and request.test_fraction == 1
    pictures, y = ([], y[:0]) if unused else (table_pictures(train), y)
    shape = choose_shape(read_headers(pictures + test_pictures, owner=owner), request.picture_shape)
    if test is None:
        rows, test_rows = split_indices(y, classes, request)
        y, y_test = y[rows], y[test_rows]
        pictures, test_pictures = [pictures[row] for row in rows], [pictures[row] for row in test_rows]
    x = decode(pictures + test_pictures, shape, owner=owner)
    x, x_test = x[: len(pictures)], x[len(pictures) :]
    name = source_name(path)
    return Dataset(
        name, "pictures", "classification", x, y, x_test, y_test, classes, (), own_test=test is not None
    )  # fmt: skip


def table_pictures(file: TableFile) -> list[Picture]:
    """Returns the encoded pictures, each called by its path and its row.

    Raises:
        ValueError: If a row has no picture.
    """
    name = str(picture_column(file))
    column = file.read([name]).column(name)
    way_out = "Remove the row, or write the bytes of the pictures into the file."
    check_complete(column, name, owner=file.owner, way_out=way_out)
    has_path = file.schema.field(name).type.get_field_index("path") >= 0
    pictures: list[Picture] = []
    for chunk in column.chunks:
        # `flatten` sees to the part of a longer chunk that this may be; `field` does not.
        parts = dict(zip([field.name for field in chunk.type], chunk.flatten(), strict=True))
        paths = parts["path"].to_pylist() if has_path else [None] * len(chunk)
        for path, content in zip(paths, parts["bytes"].to_pylist(), strict=True):
            row = len(pictures) + 1
            if content is None:
                raise bad_data(file.owner, f"column {shown(name)} has no bytes in row {row}", way_out)
            pictures.append(Picture(f"row {row}: {path}" if path else f"row {row}", content))
    return pictures


def _label_column(file: TableFile, request: Request) -> str:
    others = [name for name in file.names if name != picture_column(file)]
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
