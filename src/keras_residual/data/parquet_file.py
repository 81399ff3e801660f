"""Parquet files as tables: only what is asked for is read, and no more than memory has room for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_residual import _optional
from keras_residual._errors import printable
from keras_residual.data.files import SMALL_BYTES, check_unpacked
from keras_residual.data.table_file import ROWS_AT_A_TIME, TableFile, understood, value_type

_PICTURES_AT_A_TIME = 256


def open_parquet(path: Path, owner: str, size: int) -> TableFile:
    """Returns the file as a table."""
    parquet = _optional.require("pyarrow.parquet", extra="train")
    file = parquet.ParquetFile(path)
    arrow = _optional.require("pyarrow", extra="train")
    schema = file.schema_arrow

    def read(names: Sequence[str]) -> Any:
        return understood(lambda: _read_parquet(file, schema, list(names), path, owner, size), path, owner)

    def read_texts(names: Sequence[str]) -> Any:
        return read(names).cast(arrow.schema([(name, arrow.string()) for name in names]))

    decimals = frozenset(field.name for field in schema if arrow.types.is_decimal(value_type(field.type)))

    def batches(names: Sequence[str]) -> Iterator[tuple[int, Any, str]]:
        return _row_groups(file, list(names), path, owner, size)

    return TableFile(path, owner, size, file.metadata.num_rows, schema, read, read_texts, batches, spelled=decimals)


def _row_groups(file: Any, names: list[str], path: Path, owner: str, size: int) -> Iterator[tuple[int, Any, str]]:
    """Yields the rows of a Parquet file, one row group after the other; of one that is damaged, what is wrong with it.

    A value that is stored once may be repeated in each row, so what a batch takes is counted.
    """
    arrow = _optional.require("pyarrow", extra="train")
    fixed = all(_bytes_in_a_row(file.schema_arrow.field(name).type) for name in names)
    most_rows = ROWS_AT_A_TIME if fixed else _PICTURES_AT_A_TIME
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
