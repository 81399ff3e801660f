"""Tables for classes or numbers: `.csv` and `.parquet` with a target column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from keras_residual._errors import did_you_mean
from keras_residual.data.columns import check_complete, column_values, feature_matrix
from keras_residual.data.dataset import Dataset, Task
from keras_residual.data.features import pick_features
from keras_residual.data.labels import choose_task, class_names, encode_classes, encode_numbers
from keras_residual.data.request import Request, source_name
from keras_residual.data.split import split_indices

# pandas writes its row numbers so; they give the order of a sorted file away.
_ROW_NUMBERS = ("", "__index_level_0__")


def table_dataset(path: Path, train: Any, test: Any | None, request: Request) -> Dataset:
    """Returns the rows of one table split by seed, or of two as they are.

    Args:
        path: The file or folder, for the name.
        train: `pyarrow.Table` of all rows, or of the training rows where there is a test table.
        test: `pyarrow.Table` of the test rows, or None.
        request: Gives target, task, features and dropped columns.

    Raises:
        ValueError: If there is no such target, or a column or value cannot be used.
    """
    request.refuse("image_size", "image_shape", because="The data is a table.")
    owner = request.owner
    columns = tuple(train.column_names)
    target = pick_target(columns, request)
    for position, name in enumerate(columns):
        if name in _ROW_NUMBERS and name not in (*request.drop, target) and not request.features:
            raise ValueError(
                f"{owner}: column {position + 1} is called {name!r}: row numbers, probably, which a model "
                f"must not see. Give it a name, or leave it out with --set 'data.drop=[\"{name}\"]'."
            )
    features = pick_features(columns, request, target=target)
    values = target_values(train, target, owner=owner)
    task = choose_task(values, request.task)
    classes = _classes(values, task, request)
    y = _encode(values, task, classes, target, request)
    x = feature_matrix(train, features, owner=owner)
    if test is None:
        rows, test_rows = split_indices(y, classes, request)
        x, x_test, y, y_test = x[rows], x[test_rows], y[rows], y[test_rows]
    else:
        for name in (*features, target):
            if name not in test.column_names:
                raise ValueError(
                    f"{owner}: the test table has no column {name!r}.{did_you_mean(name, test.column_names)}"
                )
        y_test = _encode(target_values(test, target, owner=f"{owner} (test)"), task, classes, target, request)
        x_test = feature_matrix(test, features, owner=f"{owner} (test)")
    return Dataset(source_name(path), "table", task, x, y, x_test, y_test, classes, features)


def pick_target(columns: tuple[str, ...], request: Request) -> str:
    """Returns the name of the target column.

    Raises:
        ValueError: If none was given or there is no such column; lists the columns.
    """
    if request.target is None:
        raise ValueError(
            f"{request.owner}: a table needs the column to predict: give it with --target. "
            f"The columns are: {', '.join(columns)}."
        )
    if request.target not in columns:
        raise ValueError(
            f"{request.owner}: there is no target column {request.target!r}.{did_you_mean(request.target, columns)}"
        )
    return request.target


def target_values(table: Any, target: str, *, owner: str) -> np.ndarray:
    """Returns the target column as numbers, booleans or text of shape `(rows,)`.

    Raises:
        ValueError: If a value is missing or of another type.
    """
    column = table.column(target)
    check_complete(column, target, owner=owner, way_out="It is the target: fill the gap or remove the row.")
    values = column_values(column)
    if values is None:
        raise ValueError(
            f"{owner}: the target column {target!r} must hold numbers, booleans or text, but holds {column.type}. "
            f"Convert it."
        )
    return values


def _classes(values: np.ndarray, task: Task, request: Request) -> tuple[str, ...]:
    if task == "regression":
        request.refuse("classes", because="The task is regression.")
        return ()
    classes = request.classes or class_names(values)
    if len(classes) < 2:
        raise ValueError(
            f"{request.owner}: there is only the class {next(iter(classes))!r}, and telling classes apart "
            f"needs two at least. Add rows of another class or name another target."
        )
    return classes


def _encode(values: np.ndarray, task: Task, classes: tuple[str, ...], target: str, request: Request) -> np.ndarray:
    what = f"target column {target!r}"
    if task == "regression":
        return encode_numbers(values, owner=request.owner, what=what)
    return encode_classes(values, classes, owner=request.owner, what=f"{what}:")
