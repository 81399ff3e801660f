"""Where words and results go: results to standard output; with `--json` one object there and all words elsewhere."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

_NO_WIDTH = 10_000


@contextlib.contextmanager
def output(as_json: bool) -> Iterator[Console]:
    """Yields the console for words; with `as_json` nothing but `print_json` reaches standard output."""
    if not as_json:
        yield Console(highlight=False)
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield Console(stderr=True, highlight=False)


def print_table(console: Console, table: Table) -> None:
    """Prints a table; only a terminal has a width that its cells are folded to."""
    if not console.is_terminal:
        console.width = _NO_WIDTH  # `print` takes a width too, and no larger one than the console's
    console.print(table, markup=False)


def print_json(content: Mapping[str, Any]) -> None:
    """Prints one object on one line."""
    print(json.dumps(content, ensure_ascii=False), file=sys.__stdout__, flush=True)
