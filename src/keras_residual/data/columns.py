"""A table read by pyarrow to arrays of numbers, or an error that names column, row and way out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from keras_residual import _optional

TABLE_SUFFIXES = (".csv", ".parquet")
_MOST_ROWS = 5


def read_table(path: Path, *, owner: str) -> Any:
    """Returns the file as a `pyarrow.Table` whose columns have distinct names and that has rows.

    Of a CSV, the first line names the columns; comma, semicolon or tab separates them, whichever the first line has.

    Raises:
        ValueError: If the file is empty or damaged, has a header only, or names two columns alike.
    """
    arrow = _optional.require("pyarrow", extra="train")
    if path.stat().st_size == 0:
        raise ValueError(f"{owner}: the file {path} is empty.")
    try:
        table = _read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path)
        names = table.column_names
    except UnicodeDecodeError:
        raise _not_text(path, owner) from None
    except arrow.ArrowInvalid as error:
        kind = path.suffix.lower().lstrip(".")
        raise ValueError(f"{owner}: the file {path} cannot be read as {kind}: {error}") from None
    # Of a CSV, pyarrow makes bytes of a column that is not UTF-8.
    if path.suffix.lower() == ".csv" and any(arrow.types.is_binary(kind) for kind in table.schema.types):
        raise _not_text(path, owner)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{owner}: the column name {twice[0]!r} stands more than once in {path}. Rename one of them.")
    if table.num_rows == 0:
        raise ValueError(f"{owner}: the file {path} has columns ({', '.join(names)}) but no rows.")
    return table


def feature_matrix(table: Any, features: tuple[str, ...], *, owner: str, may_drop: bool = True) -> np.ndarray:
    """Returns the columns as finite float32 of shape `(rows, features)`; true is 1 and false 0.

    Args:
        table: A `pyarrow.Table` that has the columns.
        features: Names of the columns in the order of the result.
        owner: Who asks, for the message.
        may_drop: Whether a column may be left out; not where a model that needs it exists already.

    Raises:
        ValueError: If a column holds text or another type, or a value is missing or not finite.
    """
    result = np.empty((table.num_rows, len(features)), np.float32)
    for position, name in enumerate(features):
        column = table.column(name)
        drop = f", or leave the column out with --set 'data.drop={json.dumps([name])}'" if may_drop else ""
        check_complete(column, name, owner=owner, way_out=f"Fill the gap or remove the row{drop}.")
        values = column_values(column)
        if values is None or values.dtype.kind not in "iufb":
            row = 0 if values is None else _first_text(values)
            raise ValueError(
                f"{owner}: column {name!r} must hold numbers, but row {row + 1} has {column[row].as_py()!r} "
                f"({column.type}). Correct or convert it{drop}."
            )
        with np.errstate(over="ignore"):
            result[:, position] = values
        wrong = np.flatnonzero(~np.isfinite(result[:, position]))
        if len(wrong):
            raise ValueError(
                f"{owner}: column {name!r} must hold finite numbers, but has {values[wrong[0]]} in {_rows(wrong)}. "
                f"Correct it or remove the row{drop}."
            )
    return result


def check_complete(column: Any, name: str, *, owner: str, way_out: str) -> None:
    """Raises a ValueError that names the rows where the column has no value."""
    if column.null_count:
        missing = np.flatnonzero(column.is_null().to_numpy())
        raise ValueError(f"{owner}: column {name!r} has no value in {_rows(missing)}. {way_out}")


def column_values(column: Any) -> np.ndarray | None:
    """Returns a column without gaps as an array of shape `(rows,)` of numbers, booleans, text; None for other types."""
    arrow = _optional.require("pyarrow", extra="train")
    types = arrow.types
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if types.is_decimal(column.type):
        column = column.cast(arrow.float64())
    if types.is_string(column.type) or types.is_large_string(column.type):
        return np.array(column.to_pylist(), dtype=str)
    if types.is_integer(column.type) or types.is_floating(column.type) or types.is_boolean(column.type):
        return column.to_numpy()
    return None


def _not_text(path: Path, owner: str) -> ValueError:
    return ValueError(f"{owner}: the file {path} is not text in UTF-8. Save it as UTF-8.")


def _read_csv(path: Path) -> Any:
    csv = _optional.require("pyarrow.csv", extra="train")
    with path.open("rb") as file:
        header = file.readline()
    delimiter = next((sign for sign in (",", ";", "\t") if sign.encode() in header), ",")
    return csv.read_csv(
        path,
        # One block, since a row must not be longer than a block.
        # One thread: only so do errors name the row.
        read_options=csv.ReadOptions(use_threads=False, block_size=min(path.stat().st_size + 1, 2**31 - 1)),
        parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=csv.ConvertOptions(strings_can_be_null=True),
    )


def _read_parquet(path: Path) -> Any:
    parquet = _optional.require("pyarrow.parquet", extra="train")
    return parquet.ParquetFile(path).read()


def _first_text(values: np.ndarray) -> int:
    """Returns the first row whose text is no number: one word makes the whole column text."""
    for row, text in enumerate(values):
        try:
            float(text)
        except ValueError:
            return row
    return 0


def _rows(rows: np.ndarray) -> str:
    listing = ", ".join(str(row + 1) for row in rows[:_MOST_ROWS]) + (", …" if len(rows) > _MOST_ROWS else "")
    return f"row{'s' if len(rows) > 1 else ''} {listing}"
