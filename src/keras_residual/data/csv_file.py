"""CSV files as tables: read as a whole or, if large, a block at a time into a Parquet file without a name."""

from __future__ import annotations

import codecs
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from keras_residual import _optional
from keras_residual._errors import bad_data, printable, shown
from keras_residual.data.csv_text import (
    SEPARATORS,
    SEPARATORS_IN_WORDS,
    check_encoding,
    check_quotes,
    first_line,
    quotes_and_hexadecimal,
    separator,
)
from keras_residual.data.parquet_file import open_parquet
from keras_residual.data.scratch import scratch_folder
from keras_residual.data.table_file import MOST_COLUMNS, ROWS_AT_A_TIME, TableFile, understood

LARGEST_CSV_IN_MEMORY = 2**28
"""Bytes of a CSV that is read as a whole; a larger one is read a block at a time, and written to a scratch file."""
_CSV_BLOCK = 2**24
# What becomes of a column in which something turns up that its type does not have.
_WIDER = {"null": ("int64", "double"), "int64": ("double",)}
_LINE = 300


def open_csv(path: Path, owner: str, size: int) -> TableFile:
    """Returns the file as a table: read as a whole, or a block at a time where it is large."""
    if size > LARGEST_CSV_IN_MEMORY:
        return _open_large_csv(path, owner, size)
    csv = _optional.require("pyarrow.csv", extra="train")
    arrow = _optional.require("pyarrow", extra="train")
    content = path.read_bytes()
    header, delimiter = _first_line(content, path, owner)
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
        texts = understood(lambda: read(include_columns=list(names), column_types=types), path, owner)
        if texts.num_rows != table.num_rows:
            raise bad_data(owner, f"the file {path} has changed while it was read", "Read it again.")
        return texts

    # pyarrow makes bytes of a column that is not UTF-8.
    if any(arrow.types.is_binary(kind) for kind in table.schema.types):
        raise bad_data(owner, f"the file {path} is not text in UTF-8", "Save it as UTF-8.")
    _check_header(table, path, owner)

    def batches(names: Sequence[str]) -> Iterator[tuple[int, Any, str]]:
        return ((batch.num_rows, batch, "") for batch in table.select(list(names)).to_batches(ROWS_AT_A_TIME))

    return TableFile(
        path, owner, size, table.num_rows, table.schema, lambda names: table.select(list(names)), read_texts, batches,
        spelled=frozenset(table.column_names),
    )  # fmt: skip


def _first_line(content: bytes, path: Path, owner: str) -> tuple[bytes, str]:
    """Returns the line that names the columns, and what separates them.

    Args:
        content: The beginning of the file, or all of it.
        path: The file, for messages.
        owner: How messages call it.
    """
    check_encoding(content, path, owner=owner)
    header = first_line(content)
    delimiter = separator(header)
    if header.count(delimiter.encode()) >= MOST_COLUMNS:
        raise bad_data(
            owner, f"the first line of {path} names {header.count(delimiter.encode()) + 1} columns, and {MOST_COLUMNS} "
            "are allowed", "Put the examples into rows and what is known of each into columns.",
        )  # fmt: skip
    return header, delimiter


def _open_large_csv(path: Path, owner: str, size: int) -> TableFile:
    """Returns a CSV that is read a block at a time: once for what its bytes say, then to a Parquet file without a name.

    A column's type is that of all its values: where a later block has something that the type of the first blocks does
    not have, the reading begins anew with a wider one.
    """
    csv, parquet = (_optional.require(f"pyarrow.{name}", extra="train") for name in ("csv", "parquet"))
    arrow = _optional.require("pyarrow", extra="train")
    with path.open("rb") as file:
        head = file.read(_CSV_BLOCK)
    header, delimiter = _first_line(head, path, owner)
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
        return understood(lambda: stream(include_columns=list(names), column_types=types).read_all(), path, owner)

    schema, types = understood(lambda: stream().schema, path, owner), dict[str, Any]()
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
            file = open_parquet(Path(scratch), owner, size)
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
