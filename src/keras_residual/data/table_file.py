"""A table on the disk: its names and types, and its columns when they are asked for, whatever kind of file it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_residual import _optional
from keras_residual._errors import bad_data, printable

MOST_COLUMNS = 100_000
ROWS_AT_A_TIME = 2**16


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


def understood(read: Callable[[], Any], path: Path, owner: str) -> Any:
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


def value_type(kind: Any) -> Any:
    """Returns the type of the values of a column, of a dictionary that of its words."""
    types = _optional.require("pyarrow", extra="train").types
    return kind.value_type if types.is_dictionary(kind) else kind
