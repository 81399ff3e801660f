"""Pictures by name: a table with a column of file names and one of labels."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from keras_residual._errors import bad_data
from keras_residual.data.columns import column_values
from keras_residual.data.dataset import Dataset
from keras_residual.data.labels import class_names, encode_classes
from keras_residual.data.picture_parquet import label_column
from keras_residual.data.picture_set import Part, picture_set
from keras_residual.data.pictures import Picture
from keras_residual.data.request import Request
from keras_residual.data.table_file import TableFile
from keras_residual.data.tables import target_values

_SUFFIXES = ("", ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_MOST_FOLDERS, _MOST_TRIED, _LONGEST_NAME = 100, 5, 200


class Names(NamedTuple):
    """A column of file names, the folder that they are relative to, and the suffix that they lack."""

    column: str
    folder: Path
    suffix: str


def named_pictures(file: TableFile) -> Names | None:
    """Returns the first column of which one of the first values names a file beside the table or in a folder there."""
    beside = file.path.parent
    for field in file.schema:
        if "string" not in str(field.type):
            continue
        _, batch, _ = next(iter(file.batches([field.name])))
        values = [] if batch is None else batch.column(0).slice(0, _MOST_TRIED).to_pylist()
        texts = [text for text in values if text and "\0" not in text and len(text) < _LONGEST_NAME]
        folders = [beside, *sorted(path for path in beside.iterdir() if path.is_dir())[:_MOST_FOLDERS]]
        for text, folder, suffix in itertools.product(texts, folders, _SUFFIXES):
            if (folder / f"{text}{suffix}").is_file():
                return Names(field.name, folder, suffix)
    return None


def named_picture_dataset(path: Path, train: TableFile, others: Mapping[str, TableFile], request: Request) -> Dataset:
    """Returns the pictures that a table names, with the labels in another column; a file that is missing is broken.

    Raises:
        ValueError: If there is no label column, or more pictures are missing or broken than may be.
    """
    request.check_kind("pictures")
    request.refuse("features", "drop", because="The data is pictures.")
    if request.task == "regression":
        raise bad_data(request.owner, "pictures have classes here, so the task is classification")
    names = named_pictures(train)
    label = label_column(train, request, beside=names.column if names else None)
    values = target_values(train, label)
    classes = request.classes or class_names(values, owner=request.owner)
    parts = {}
    for part, table in {"train": train, **others}.items():
        found = named_pictures(table)
        if found is None:
            raise bad_data(table.owner, f"the first file name in {table.path.name} leads to no file", "Correct it.")
        texts = column_values(table.read([found.column]).column(0))
        files = [str(found.folder / f"{text}{found.suffix}") for text in ([] if texts is None else texts)]
        y = encode_classes(target_values(table, label), classes, owner=table.owner)
        parts[part] = Part(table.path.name, [Picture(name, name) for name in files], y)
    return picture_set(path, parts, classes, request)
