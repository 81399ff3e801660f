"""A table read by pyarrow to arrays of numbers, or an error that names column, row and way out."""

from __future__ import annotations

import codecs
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from keras_residual import _optional
from keras_residual._errors import bad_data, listed, printable, shown
from keras_residual._order import composed
from keras_residual.data.csv_text import (
    SEPARATORS,
    SEPARATORS_IN_WORDS,
    check_encoding,
    check_quotes,
    first_line,
    quotes_and_hexadecimal,
    separator,
)
from keras_residual.data.files import SMALL_BYTES, check_file, check_unpacked
from keras_residual.data.lazy import Inputs, digests_of
from keras_residual.data.scratch import rows_of_file, scratch_file, scratch_folder

TABLE_SUFFIXES = (".csv", ".parquet")
MOST_COLUMNS = 100_000
# The model that is saved takes float32, whatever it is computed in.
_LARGEST_NUMBER = float(np.finfo(np.float32).max)
_MOST_ROWS, _MOST_NAMES, _LINE = 5, 30, 300
_ROWS_AT_A_TIME, _PICTURES_AT_A_TIME = 2**16, 256
LARGEST_CSV_IN_MEMORY = 2**28
"""Bytes of a CSV that is read as a whole; a larger one is read a block at a time, and written to a scratch file."""
_CSV_BLOCK = 2**24
# What becomes of a column in which something turns up that its type does not have.
_WIDER = {"null": ("int64", "double"), "int64": ("double",)}
# Below this, different whole numbers are different 64-bit floats.
_EXACT = 2**53


@dataclass(frozen=True)
class TableFile:
    """A table on the disk, whose columns are read when they are asked for.

    Args:
        path: The file.
        owner: How messages call it.
        size: Its bytes on the disk.
        rows: Number of rows, 1 or more.
        schema: Its `pyarrow.Schema`; the names are distinct.
        read: Function of some names that returns these columns as a `pyarrow.Table`.
        read_texts: Function of some names that returns these columns as text.
        batches: Function of some names that yields their rows a few at a time: how many, the `pyarrow.RecordBatch`, and
            what is wrong with it, which is "" where there is a batch and else stands for None.
        spelled: Names of the columns that the file itself has as text or decimals, of which `read` makes numbers.
    """

    path: Path
    owner: str
    size: int
    rows: int
    schema: Any
    read: Callable[[Sequence[str]], Any]
    read_texts: Callable[[Sequence[str]], Any]
    batches: Callable[[Sequence[str]], Iterator[tuple[int, Any, str]]]
    spelled: frozenset[str]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all columns."""
        return tuple(self.schema.names)


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
    open_file = _open_csv if path.suffix.lower() == ".csv" else _open_parquet
    file = _with_composed_names(_understood(lambda: open_file(path, owner, size), path, owner))
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
    kind = _value_type(column.type)
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
    return str(_value_type(kind)) in ("string", "large_string", "string_view")


def _value_type(kind: Any) -> Any:
    types = _optional.require("pyarrow", extra="train").types
    return kind.value_type if types.is_dictionary(kind) else kind


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


def _understood(read: Callable[[], Any], path: Path, owner: str) -> Any:
    """Returns what the function returns; raises what pyarrow says of a damaged file as one line that names the file."""
    arrow = _optional.require("pyarrow", extra="train")
    try:
        return read()
    except UnicodeDecodeError:
        raise bad_data(owner, f"the file {path} is not text in UTF-8", "Save it as UTF-8.") from None
    except (arrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the system, as "Permission denied"
        kind = path.suffix.lower().lstrip(".")
        reason = " ".join(str(error).split()).removesuffix(".")
        raise bad_data(
            owner, f"the file {path} cannot be read as {kind}: {printable(reason, 500)}", "Correct or replace it."
        ) from None


def _open_csv(path: Path, owner: str, size: int) -> TableFile:
    if size > LARGEST_CSV_IN_MEMORY:
        return _open_large_csv(path, owner, size)
    csv = _optional.require("pyarrow.csv", extra="train")
    arrow = _optional.require("pyarrow", extra="train")
    content = path.read_bytes()
    check_encoding(content, path, owner=owner)
    header = first_line(content)
    delimiter = separator(header)
    if header.count(delimiter.encode()) >= MOST_COLUMNS:
        raise bad_data(
            owner, f"the first line of {path} names {header.count(delimiter.encode()) + 1} columns, and {MOST_COLUMNS} "
            "are allowed", "Put the examples into rows and what is known of each into columns.",
        )  # fmt: skip
    check_quotes(content, delimiter, path, owner=owner)
    may_be_hexadecimal = b"0x" in content or b"0X" in content
    del content

    def read(**columns: Any) -> Any:
        return csv.read_csv(
            path,
            # One block, since a row must not be longer than a block.
            # One thread: only so do errors name the row.
            read_options=csv.ReadOptions(use_threads=False, block_size=min(size + 1, 2**31 - 1)),
            parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=csv.ConvertOptions(strings_can_be_null=True, **columns),
        )

    try:
        table = read()
    except arrow.ArrowInvalid as error:
        _check_even_rows(str(error), header, delimiter, path, owner)
        raise
    if may_be_hexadecimal:
        table = _without_hexadecimal(table, read)

    def read_texts(names: Sequence[str]) -> Any:
        types = dict.fromkeys(names, arrow.string())
        texts = _understood(lambda: read(include_columns=list(names), column_types=types), path, owner)
        if texts.num_rows != table.num_rows:
            raise bad_data(owner, f"the file {path} has changed while it was read", "Read it again.")
        return texts

    # pyarrow makes bytes of a column that is not UTF-8.
    if any(arrow.types.is_binary(kind) for kind in table.schema.types):
        raise bad_data(owner, f"the file {path} is not text in UTF-8", "Save it as UTF-8.")
    _check_header(table, path, owner)

    def batches(names: Sequence[str]) -> Iterator[tuple[int, Any, str]]:
        return ((batch.num_rows, batch, "") for batch in table.select(list(names)).to_batches(_ROWS_AT_A_TIME))

    return TableFile(
        path, owner, size, table.num_rows, table.schema, lambda names: table.select(list(names)), read_texts, batches,
        spelled=frozenset(table.column_names),
    )  # fmt: skip


def _open_large_csv(path: Path, owner: str, size: int) -> TableFile:
    """Returns a CSV that is read a block at a time: once for what its bytes say, then to a Parquet file without a name.

    A column's type is that of all its values: where a later block has something that the type of the first blocks does
    not have, the reading begins anew with a wider one.
    """
    csv, parquet = (_optional.require(f"pyarrow.{name}", extra="train") for name in ("csv", "parquet"))
    arrow = _optional.require("pyarrow", extra="train")
    with path.open("rb") as file:
        head = file.read(_CSV_BLOCK)
    check_encoding(head, path, owner=owner)
    header = first_line(head)
    delimiter = separator(header)
    if header.count(delimiter.encode()) >= MOST_COLUMNS:
        raise bad_data(
            owner, f"the first line of {path} names {header.count(delimiter.encode()) + 1} columns, and {MOST_COLUMNS} "
            "are allowed", "Put the examples into rows and what is known of each into columns.",
        )  # fmt: skip
    quoted, may_be_hexadecimal = quotes_and_hexadecimal(path)
    if quoted:
        check_quotes(path.read_bytes(), delimiter, path, owner=owner)

    def stream(**columns: Any) -> Any:
        return csv.open_csv(
            path,
            read_options=csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK),
            parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=quoted),
            convert_options=csv.ConvertOptions(strings_can_be_null=True, **columns),
        )

    def texts(names: Sequence[str]) -> Any:
        types = dict.fromkeys(names, arrow.string())
        return _understood(lambda: stream(include_columns=list(names), column_types=types).read_all(), path, owner)

    schema, types = _understood(lambda: stream().schema, path, owner), dict[str, Any]()
    names = schema.names
    if may_be_hexadecimal:  # pyarrow reads them as whole numbers, which no other number may be
        types = dict.fromkeys(_hexadecimal(stream, names), arrow.string())
    while True:
        descriptor, scratch = tempfile.mkstemp(".parquet", "keras-residual-", scratch_folder())
        os.close(descriptor)
        try:
            reader = stream(column_types=types)
            schema = reader.schema
            with parquet.ParquetWriter(scratch, schema, use_dictionary=False, compression="none") as writer:
                for batch in reader:
                    writer.write_batch(batch)
            file = _open_parquet(Path(scratch), owner, size)
        except arrow.ArrowInvalid as error:
            wider = _wider_type(str(error), names, types, schema)
            if wider is None:
                _check_even_rows(str(error), header, delimiter, path, owner)
                raise
            types |= wider
        else:
            break
        finally:
            Path(scratch).unlink()  # what is open stays readable
    if any(arrow.types.is_binary(kind) for kind in file.schema.types):
        raise bad_data(owner, f"the file {path} is not text in UTF-8", "Save it as UTF-8.")
    _check_header(file.schema.empty_table(), path, owner)
    return replace(file, path=path, read_texts=texts, spelled=frozenset(names))


def _wider_type(error: str, names: list[str], types: dict[str, Any], schema: Any) -> dict[str, Any] | None:
    """Returns the next type of the column of which pyarrow says that a value is none of its type; None for no such."""
    arrow = _optional.require("pyarrow", extra="train")
    found = re.search(r"In CSV column #(\d+): .*CSV conversion error to ([\w]+)", error)
    if not found or int(found[1]) >= len(names):
        return None
    name = names[int(found[1])]
    kind = str(schema.field(name).type)
    if kind == "string":
        return None
    wider = [*_WIDER.get(kind, ()), "string"]
    tried = str(types[name]) if name in types else ""
    following = wider[wider.index(tried) + 1 :] if tried in wider else wider
    return {name: arrow.type_for_alias(following[0])}


def _hexadecimal(stream: Callable[..., Any], names: list[str]) -> list[str]:
    arrow = _optional.require("pyarrow", extra="train")
    compute = _optional.require("pyarrow.compute", extra="train")
    return sorted(
        {
            name
            for batch in stream(column_types=dict.fromkeys(names, arrow.string()))
            for name in names
            if compute.any(compute.match_substring_regex(batch.column(name), r"^\s*-?0[xX]")).as_py()
        }
    )


def _without_hexadecimal(table: Any, read: Callable[..., Any]) -> Any:
    """Returns the table with whole numbers such as 0x1f, which pyarrow reads and no other number may be, as text."""
    arrow = _optional.require("pyarrow", extra="train")
    compute = _optional.require("pyarrow.compute", extra="train")
    whole = [place for place, kind in enumerate(table.schema.types) if arrow.types.is_integer(kind)]
    texts = read(column_types={table.column_names[place]: arrow.string() for place in whole})
    for place in whole:
        if compute.any(compute.match_substring(texts.column(place), "0x", ignore_case=True)).as_py():
            table = table.set_column(place, table.column_names[place], texts.column(place))
    return table


def _check_even_rows(error: str, header: bytes, delimiter: str, path: Path, owner: str) -> None:
    """Raises where pyarrow's error is that a row has not as many values as the first line has names."""
    found = re.match(r"CSV parse error: Row #(\d+): Expected (\d+) columns, got (\d+)(?:: (.*))?$", error, re.DOTALL)
    if not found:
        return
    row, columns, values = int(found[1]) - 1, int(found[2]), int(found[3])
    names = printable(header.removeprefix(codecs.BOM_UTF8).decode().strip(), _LINE)
    way_out = (
        f"The first line must name the columns, and {SEPARATORS_IN_WORDS} separates them."
        if 1 in (row, columns)
        else f"Correct the row; a value with a {SEPARATORS[delimiter]} in it must be in quotes."
    )
    raise bad_data(
        owner, f"the first line of {path} names {columns} column{'s' if columns > 1 else ''} ({names}), but row {row} "
        f"has {values} value{'s' if values > 1 else ''}: {printable(found[4] or '', _LINE)}", way_out,
    )  # fmt: skip


def _check_header(table: Any, path: Path, owner: str) -> None:
    """Raises where the first line has the numbers of an example, or is not separated.

    Names such as 2019 are whole numbers at least.
    """
    types, names = _optional.require("pyarrow", extra="train").types, table.column_names
    if len(names) == 1 and re.search(r"\S[\s|:]+\S", names[0]) and types.is_string(table.schema.types[0]):
        raise bad_data(
            owner, f"the first line of {path} names one column only, {shown(names[0])}",
            f"Separate the columns by {SEPARATORS_IN_WORDS}.",
        )  # fmt: skip
    try:
        values = [float(name) for name in names]
    except ValueError:
        return
    if not all(value.is_integer() for value in values):
        raise bad_data(
            owner, f"the first line of {path} has numbers ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})",
            "Put a line before it that names the columns.",
        )  # fmt: skip


def _open_parquet(path: Path, owner: str, size: int) -> TableFile:
    parquet = _optional.require("pyarrow.parquet", extra="train")
    file = parquet.ParquetFile(path)
    arrow = _optional.require("pyarrow", extra="train")
    schema = file.schema_arrow

    def read(names: Sequence[str]) -> Any:
        return _understood(lambda: _read_parquet(file, schema, list(names), path, owner, size), path, owner)

    def read_texts(names: Sequence[str]) -> Any:
        return read(names).cast(arrow.schema([(name, arrow.string()) for name in names]))

    decimals = frozenset(field.name for field in schema if arrow.types.is_decimal(_value_type(field.type)))

    def batches(names: Sequence[str]) -> Iterator[tuple[int, Any, str]]:
        return _row_groups(file, list(names), path, owner, size)

    return TableFile(path, owner, size, file.metadata.num_rows, schema, read, read_texts, batches, spelled=decimals)


def _row_groups(file: Any, names: list[str], path: Path, owner: str, size: int) -> Iterator[tuple[int, Any, str]]:
    """Yields the rows of a Parquet file, one row group after the other; of one that is damaged, what is wrong with it.

    A value that is stored once may be repeated in each row, so what a batch takes is counted.
    """
    arrow = _optional.require("pyarrow", extra="train")
    fixed = all(_bytes_in_a_row(file.schema_arrow.field(name).type) for name in names)
    most_rows = _ROWS_AT_A_TIME if fixed else _PICTURES_AT_A_TIME
    for group in range(file.num_row_groups):
        left = file.metadata.row_group(group).num_rows
        try:
            for batch in file.iter_batches(batch_size=most_rows, row_groups=[group], columns=names):
                check_unpacked(
                    batch.nbytes, size, owner=owner, what=f"{batch.num_rows} rows of {path}",
                    way_out="Write it with fewer rows in a row group.",
                )  # fmt: skip
                yield batch.num_rows, batch.select(names), ""
                left -= batch.num_rows
        except (arrow.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            yield left, None, f"row group {group + 1} is damaged: {printable(' '.join(str(error).split()), 200)}"


def _read_parquet(file: Any, schema: Any, names: list[str], path: Path, owner: str, size: int) -> Any:
    """Returns the columns, read in batches and counted: a value that is stored once may be repeated in each row."""
    arrow = _optional.require("pyarrow", extra="train")
    what, way_out = f"the table {path}", "Take fewer rows or columns, or write the table as CSV."
    wanted, facts = set(names), file.metadata
    groups = [facts.row_group(index) for index in range(facts.num_row_groups)]
    leaves = [
        column.total_uncompressed_size
        for group in groups
        for column in map(group.column, range(group.num_columns))
        if column.path_in_schema.partition(".")[0] in wanted or column.path_in_schema in wanted
    ]
    widths = [_bytes_in_a_row(schema.field(name).type) for name in names]
    least = max(sum(leaves), facts.num_rows * sum(width or 0 for width in widths))
    check_unpacked(least, size, owner=owner, what=what, way_out=way_out)
    # A text or a picture is at most as long as its column; numbers all have one width.
    most_rows = 2**16 if None not in widths else max(1, min(256, SMALL_BYTES // 4 // max([1, *leaves])))
    batches, taken = [], 0
    for batch in file.iter_batches(batch_size=most_rows, columns=names):
        taken += batch.nbytes
        check_unpacked(taken, size, owner=owner, what=what, way_out=way_out)
        batches.append(batch)
    table = arrow.Table.from_batches(batches) if batches else schema.empty_table()
    if table.num_rows != facts.num_rows:
        raise arrow.ArrowInvalid(f"it says that it has {facts.num_rows} rows and has {table.num_rows}")
    return table.select(names)


def _bytes_in_a_row(kind: Any) -> int | None:
    """Returns the bytes of a value; None for text and other types whose values differ in length."""
    try:
        return -(-kind.bit_width // 8)
    except ValueError:
        return None
