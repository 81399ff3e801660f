"""Tables for classes or numbers: `.csv` and `.parquet` with a target column."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from keras_residual import _optional
from keras_residual._errors import bad_data, did_you_mean, listed, printable, shown
from keras_residual.data.columns import check_complete, check_spelled, column_values, feature_rows
from keras_residual.data.dataset import Dataset, Task
from keras_residual.data.features import check_columns, pick_features
from keras_residual.data.files import in_words
from keras_residual.data.labels import KEEP_APART, choose_task, class_names, encode_classes, encode_numbers
from keras_residual.data.lazy import Inputs, LazyExamples, joined, subset
from keras_residual.data.request import Request, source_name
from keras_residual.data.split import split_indices
from keras_residual.data.table_file import TableFile

# pandas writes its row numbers so, and reads them back so; they give the order of a sorted file away.
_ROW_NUMBERS = ("", "__index_level_0__", "Unnamed: 0")


def table_dataset(path: Path, train: TableFile, others: Mapping[str, TableFile], request: Request) -> Dataset:
    """Returns the rows of one table split by seed, or of two as they are.

    Args:
        path: The file or folder, for the name.
        train: All rows, or the training rows where there are other parts.
        others: The tables of the other parts; `"validation"` is what the best epoch is chosen by.
        request: Gives target, task, features and dropped columns.

    Raises:
        ValueError: If there is no such target, or a column or value cannot be used.
    """
    request.check_kind("table")
    request.refuse("image_size", "image_shape", because="The data is a table.")
    owner, test = request.owner, others.get("test")
    target = pick_target(train.names, request)
    for position, name in enumerate(train.names):
        if name in _ROW_NUMBERS and name not in (*request.drop, target) and not request.features:
            raise bad_data(
                owner, f"column {position + 1} is called {name!r}: row numbers, probably, which a model must not see",
                f"Give it a name, or leave it out with --set 'data.drop=[\"{name}\"]'.",
            )  # fmt: skip
    features = pick_features(train.names, request, target=target)
    for table in others.values():
        check_columns((*features, target), table.names, owner=table.owner)
    values = target_values(train, target)
    task = choose_task(values, request.task)
    texts = _label_texts(train, target, values, task)
    classes = _classes(values, texts, task, request)
    y = _encode(train, values, texts, task, classes, target)
    del values, texts

    def inputs(file: TableFile) -> Inputs:
        return feature_rows(file, features, memory=request.memory)

    def answers(file: TableFile) -> np.ndarray:
        own = target_values(file, target)
        return _encode(file, own, _label_texts(file, target, own, task), task, classes, target)

    everything = request.test_fraction == 1
    if test is None:
        x, (rows, test_rows) = inputs(train), split_indices(y, classes, request)
        x, x_test, y, y_test = subset(x, rows), subset(x, test_rows), y[rows], y[test_rows]
    else:
        x_test, y_test = inputs(test), answers(test)
        # Where all is for testing, the training rows are not even looked at.
        x, y = (subset(x_test, slice(0, 0)), y[:0]) if everything else (inputs(train), y)
    choose = None
    if "validation" in others and not (everything and test is not None):
        own_x, own_y = inputs(others["validation"]), answers(others["validation"])
        if everything:
            x_test, y_test = joined(x_test, own_x), np.concatenate([y_test, own_y])
        else:
            choose = np.arange(len(y), len(y) + len(own_y))
            x, y = joined(x, own_x), np.concatenate([y, own_y])
    return Dataset(
        source_name(path), "table", task, x, y, x_test, y_test, classes, features, own_test=test is not None,
        choose=choose, found=_found(x, train, others, request),
    )  # fmt: skip


def _found(x: Inputs, train: TableFile, others: Mapping[str, TableFile], request: Request) -> tuple[str, ...]:
    counts = [f"{file.path.name} {file.rows}" for file in (train, *others.values())]
    drawn = f"drawn by seed {request.seed}, {request.test_fraction:.3g} of {train.path.name}"
    validation, test = (others[part].path.name if part in others else "" for part in ("validation", "test"))
    size = in_words(8 * math.prod(x.shape))
    return (
        f"Found rows of {x.shape[1]} features: {', '.join(counts)}.",
        f"Validation: {validation or 'drawn by seed from what is learned from'}. Test: {test or drawn}.",
        f"Read from a scratch file as they are needed, since {size} would not fit into the "
        f"{in_words(request.memory)} of data.memory."
        if isinstance(x, LazyExamples)
        else f"Held in memory: {size}.",
    )


def pick_target(columns: tuple[str, ...], request: Request) -> str:
    """Returns the name of the target column.

    Raises:
        ValueError: If none was given or there is no such column; lists the columns.
    """
    if request.target is None:
        raise bad_data(
            request.owner, "a table needs the column to predict: give it with --target",
            f"The columns are: {listed(columns, 30)}.",
        )  # fmt: skip
    if request.target not in columns:
        raise bad_data(
            request.owner, f"there is no target column {shown(request.target)}",
            did_you_mean(request.target, columns).strip(),
        )  # fmt: skip
    return request.target


def target_values(file: TableFile, target: str) -> np.ndarray:
    """Returns the target column as numbers, booleans or text of shape `(rows,)`.

    Raises:
        ValueError: If a value is missing or of another type.
    """
    column = file.read([target]).column(target)
    way_out = "It is the target: fill the gap or remove the row. Of a CSV, NA, NaN, null and the like are gaps too."
    check_complete(column, target, owner=file.owner, way_out=way_out)
    values = column_values(column)
    if values is None:
        raise bad_data(
            file.owner, f"the target column {shown(target)} must hold numbers, booleans or text, but holds "
            f"{printable(column.type)}", "Convert it.",
        )  # fmt: skip
    return values


def _label_texts(file: TableFile, target: str, values: np.ndarray, task: Task) -> np.ndarray | None:
    """Returns labels that were read as numbers or booleans as the file spells them; None where the values say all.

    pyarrow passes over blanks around a number, and so does this.
    """
    if target not in file.spelled or task == "regression" or values.dtype.kind not in "iufb":
        return None
    compute = _optional.require("pyarrow.compute", extra="train")
    return column_values(compute.utf8_trim_whitespace(file.read_texts([target]).column(0)))


def _classes(values: np.ndarray, texts: np.ndarray | None, task: Task, request: Request) -> tuple[str, ...]:
    if task == "regression":
        request.refuse("classes", because="The task is regression.")
        return ()
    classes = request.classes or class_names(values, texts, owner=request.owner)
    if len(classes) < 2:
        only = shown(next(iter(classes)))
        raise bad_data(
            request.owner, f"there is only the class {only}, and telling classes apart needs two at least",
            "Add rows of another class or name another target.",
        )  # fmt: skip
    return classes


def _encode(
    file: TableFile,
    values: np.ndarray,
    texts: np.ndarray | None,
    task: Task,
    classes: tuple[str, ...],
    target: str,
) -> np.ndarray:
    what = f"target column {shown(target)}"
    if task == "regression":
        y = encode_numbers(values, owner=file.owner, what=what)
        check_spelled(file, [target], y[:, None], way_outs=[KEEP_APART], what="target column")
        return y
    return encode_classes(values, classes, texts, owner=file.owner, what=f"{what}:")
