"""A table read by pyarrow to arrays of numbers, or an error that names column, row and way out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from keras_residual import _optional
from keras_residual._errors import bad_data, listed, printable, shown
from keras_residual._order import composed
from keras_residual.data.csv_file import open_csv
from keras_residual.data.files import check_file, check_unpacked
from keras_residual.data.lazy import Inputs, digests_of
from keras_residual.data.parquet_file import open_parquet
from keras_residual.data.scratch import rows_of_file, scratch_file
from keras_residual.data.table_file import TableFile, understood, value_type

TABLE_SUFFIXES = (".csv", ".parquet")
# The model that is saved takes float32, whatever it is computed in.
_LARGEST_NUMBER = float(np.finfo(np.float32).max)
_MOST_ROWS, _MOST_NAMES = 5, 30
# Below this, different whole numbers are different 64-bit floats.
_EXACT = 2**53


def open_table(path: Path, *, owner: str) -> TableFile:
    """Returns the table; it has rows, and columns of distinct names.

    Of a CSV, the first line names the columns; comma, semicolon or tab separates them, whichever the first line has
    most of. Of a Parquet file only the columns that are asked for are read.

    Raises:
        ValueError: If the file is empty or damaged, has a header only, names two columns alike, or would take far more
            memory than it has bytes.
    """
    size = check_file(path, owner=owner)
    if size == 0:
        raise bad_data(owner, f"the file {path} is empty")
    open_file = open_csv if path.suffix.lower() == ".csv" else open_parquet
    file = _with_composed_names(understood(lambda: open_file(path, owner, size), path, owner))
    twice = [name for name, count in Counter(file.names).items() if count > 1]
    if twice:
        raise bad_data(owner, f"the column name {shown(twice[0])} stands more than once in {path}", "Rename one.")
    if file.rows == 0:
        raise bad_data(owner, f"the file {path} has columns ({listed(file.names, _MOST_NAMES)}) but no rows")
    return file


def _with_composed_names(file: TableFile) -> TableFile:
    names = [composed(name) for name in file.names]
    if names == list(file.names):
        return file
    own = dict(zip(names, file.names, strict=True))
    fields = [field.with_name(name) for field, name in zip(file.schema, names, strict=True)]
    schema = _optional.require("pyarrow", extra="train").schema(fields, metadata=file.schema.metadata)

    def renamed(read: Callable[[Sequence[str]], Any]) -> Callable[[Sequence[str]], Any]:
        return lambda wanted: read([own[name] for name in wanted]).rename_columns(list(wanted))

    return replace(
        file,
        schema=schema,
        read=renamed(file.read),
        read_texts=renamed(file.read_texts),
        batches=lambda wanted: file.batches([own[name] for name in wanted]),
        spelled=frozenset(map(composed, file.spelled)),
    )


def feature_matrix(file: TableFile, features: Sequence[str], *, may_drop: bool = True) -> np.ndarray:
    """Returns the columns as finite float64 of shape `(rows, features)`; true is 1 and false 0.

    Args:
        file: A table that has the columns.
        features: Names of the columns in the order of the result.
        may_drop: Whether a column may be left out; not where a model that needs it exists already.

    Raises:
        ValueError: If a column holds text or another type, or a value is missing, not finite, or beyond what 32-bit
            floats hold (the model takes those) or 64-bit floats tell apart.
    """
    what, way_out = f"{file.rows} rows of {len(features)} numbers", "Take fewer rows, or write the table as CSV."
    check_unpacked(8 * file.rows * len(features), file.size, owner=file.owner, what=what, way_out=way_out)
    table, way_outs = file.read(features), _way_outs(features, may_drop)
    result = np.empty((file.rows, len(features)), np.float64)
    for position, name in enumerate(features):
        result[:, position] = _numbers(table.column(position), name, file.owner, way_outs[position])
    check_spelled(file, features, result, way_outs=way_outs)
    return result


def feature_rows(file: TableFile, features: Sequence[str], *, memory: int) -> Inputs:
    """Returns what `feature_matrix` does, in memory or, where that takes more than `memory` bytes, in a scratch file.

    It is written once, some thousand rows at a time, and holds the numbers as they are in memory. Numbers that one
    float would stand for are looked for among as many rows only.

    Raises:
        ValueError: As `feature_matrix`, and where a row group cannot be read.
    """
    if 8 * file.rows * len(features) <= memory:
        return feature_matrix(file, features)
    way_outs, row, digests = _way_outs(features, True), 0, np.empty(file.rows, np.uint64)
    for name, way_out in zip(features, way_outs, strict=True):
        if _is_text(file.schema.field(name).type):  # whose first word may come late
            _numbers(file.read([name]).column(0), name, file.owner, way_out)
    with scratch_file(file.owner) as scratch:
        for rows, batch, wrong in file.batches(features):
            if batch is None:
                raise bad_data(
                    file.owner, f"rows {row + 1} to {row + rows} of {file.path} cannot be read ({wrong})",
                    "Correct or replace it.",
                )  # fmt: skip
            block = np.empty((rows, len(features)), np.float64)
            for place, name in enumerate(features):
                block[:, place] = _numbers(batch.column(place), name, file.owner, way_outs[place], row)
            digests[row : row + rows] = digests_of(block)
            scratch.write(block.data)
            row += rows
    if row != file.rows:
        raise bad_data(file.owner, f"the file {file.path} says that it has {file.rows} rows and has {row}")
    return rows_of_file(scratch, 0, (file.rows, len(features)), np.float64, digests)


def _way_outs(features: Sequence[str], may_drop: bool) -> list[str]:
    return [
        f", or leave the column out with --set 'data.drop={json.dumps([name])}'" if may_drop else ""
        for name in features
    ]


def check_spelled(
    file: TableFile,
    names: Sequence[str],
    numbers: np.ndarray,
    *,
    way_outs: Sequence[str],
    what: str = "column",
) -> None:
    """Raises a ValueError where numbers that differ in the file are one float; `finite_numbers` cannot see these.

    The file is read again only where numbers beyond 2**53 are equal as floats.

    Args:
        file: The table.
        names: Columns of numbers.
        numbers: What they are as float64, shape `(rows, columns)`.
        way_outs: As `drop` of `finite_numbers`, for each column.
        what: What they are, for the message.
    """
    doubtful: list[int] = []
    for position, name in enumerate(names):
        if name in file.spelled:
            column = numbers[:, position]
            beyond = column[np.abs(column) >= _EXACT]
            if len(np.unique(beyond)) < len(beyond):
                doubtful.append(position)
    if not doubtful:
        return
    arrow = _optional.require("pyarrow", extra="train")
    texts = file.read_texts([names[position] for position in doubtful])
    for place, position in enumerate(doubtful):
        beyond = texts.column(place).filter(arrow.array(np.abs(numbers[:, position]) >= _EXACT))
        exact = np.array([Decimal(text.strip()) for text in beyond.unique().to_pylist()], object)
        _check_told_apart(exact, f"{what} {shown(names[position])}", file.owner, way_outs[position])


def check_complete(column: Any, name: str, *, owner: str, way_out: str, first: int = 0) -> None:
    """Raises a ValueError that names the rows where the column has no value; `first` is the place of its first row."""
    if column.null_count:
        missing = first + np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
        raise bad_data(owner, f"column {shown(name)} has no value in {rows_in_words(missing)}", way_out)


def finite_numbers(
    values: np.ndarray, *, owner: str, what: str, drop: str = "", keep_apart: str | None = None, first: int = 0
) -> np.ndarray:
    """Returns numbers as float64.

    Args:
        values: Numbers or booleans of shape `(rows,)` or `(rows, columns)`, the columns called `x0`, `x1`, ….
        owner: Who asks, for the message.
        what: What holds them, for the message.
        drop: How the message says to leave them out, "" where they cannot be.
        keep_apart: What else it says to do about numbers that one float would stand for; None for `drop`.
        first: Place of the first row.

    Raises:
        ValueError: If a number is not finite, beyond what 32-bit floats hold, or one 64-bit float with another.
    """
    numbers = values.astype(np.float64)
    sizes = np.abs(numbers)
    wrong = np.argwhere(~(sizes <= _LARGEST_NUMBER))
    if len(wrong):
        one = tuple(wrong[0])
        rule = "finite numbers" if not np.isfinite(numbers[one]) else f"numbers up to {_LARGEST_NUMBER:.1e}"
        where = rows_in_words(first + wrong[(wrong[:, 1:] == wrong[0, 1:]).all(axis=1), 0])
        where += "".join(f", column 'x{column}'" for column in one[1:])
        raise bad_data(
            owner, f"{what} must hold {rule}, but has {values[one]} in {where}",
            f"Correct the value or remove the row{drop}.",
        )  # fmt: skip
    if values.dtype.kind in "iu" and sizes.max(initial=0) >= _EXACT:
        for column in np.ndindex(values.shape[1:]):
            beyond = values[:, *column][sizes[:, *column] >= _EXACT]
            where = "".join(f", column 'x{place}'," for place in column)
            _check_told_apart(beyond, what + where, owner, drop if keep_apart is None else keep_apart)
    return numbers


def column_values(column: Any) -> np.ndarray | None:
    """Returns a column without gaps as an array of shape `(rows,)` of numbers, booleans, text; None for other types.

    Text is an array of Python's strings, in which equal ones are one: NumPy's own would make each as wide as the
    longest.
    """
    arrow = _optional.require("pyarrow", extra="train")
    types = arrow.types
    kind = value_type(column.type)
    if _is_text(kind):
        return _text(column)
    if types.is_dictionary(column.type):
        column = column.cast(kind)
    if types.is_decimal(kind):
        column = column.cast(arrow.float64())
    if types.is_integer(column.type) or types.is_floating(column.type) or types.is_boolean(column.type):
        return column.to_numpy()
    return None


def _is_text(kind: Any) -> bool:
    return str(value_type(kind)) in ("string", "large_string", "string_view")


def rows_in_words(rows: np.ndarray) -> str:
    """Returns "row 3", or "rows 3, 5, …" for several, counted from 1."""
    listing = ", ".join(str(row + 1) for row in rows[:_MOST_ROWS]) + (", …" if len(rows) > _MOST_ROWS else "")
    return f"row{'s' if len(rows) > 1 else ''} {listing}"


def _numbers(column: Any, name: str, owner: str, drop: str, first: int = 0) -> np.ndarray:
    """Returns a column, or a part of it from row `first` on, as float64; `drop` says how to leave it out, or is ""."""
    arrow = _optional.require("pyarrow", extra="train")
    column = column if isinstance(column, arrow.ChunkedArray) else arrow.chunked_array([column])
    check_complete(column, name, owner=owner, way_out=f"Fill the gap or remove the row{drop}.", first=first)
    values = column_values(column)
    if values is None or values.dtype.kind not in "iufb":
        row = 0 if values is None else _first_text(values)
        raise bad_data(
            owner, f"column {shown(name)} must hold numbers, but row {first + row + 1} has {_cell(column[row])} "
            f"({printable(column.type)})", f"Correct or convert it{drop}.",
        )  # fmt: skip
    return finite_numbers(values, owner=owner, what=f"column {shown(name)}", drop=drop, first=first)


def _check_told_apart(beyond: np.ndarray, what: str, owner: str, way_out: str) -> None:
    """Raises where two of the numbers, 2**53 or more and as exact as the data has them, are one 64-bit float.

    Such are numbers of accounts, say.
    """
    distinct = np.unique(beyond)
    alike = np.flatnonzero(np.diff(distinct.astype(np.float64)) == 0)
    if len(alike):
        one, other = distinct[alike[0]], distinct[alike[0] + 1]
        raise bad_data(
            owner, f"{what} has numbers beyond 2**53 that 64-bit floats do not tell apart, {one} and {other}",
            f"Subtract what they have in common{way_out}.",
        )  # fmt: skip


def _text(column: Any) -> np.ndarray:
    types = _optional.require("pyarrow", extra="train").types
    if not types.is_dictionary(column.type):
        column = column.dictionary_encode()
    parts = []
    for chunk in column.unify_dictionaries().chunks:
        words = np.array([*chunk.dictionary.to_pylist(), None], object)[:-1]  # an array of one text would be a text
        parts.append(words[chunk.indices.to_numpy()])
    return np.concatenate(parts)


def _cell(scalar: Any) -> str:
    # A date may lie outside of what Python's dates hold.
    try:
        return shown(scalar.as_py())
    except Exception:
        return "a value"


def _first_text(values: np.ndarray) -> int:
    """Returns the first row whose text is no number: one word makes the whole column text."""
    for row, text in enumerate(values):
        try:
            float(text)
        except ValueError:
            return row
    return 0
