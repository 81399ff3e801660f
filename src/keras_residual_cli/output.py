"""Where words and results go: results to standard output; with `--json` one object there and all words elsewhere."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_NO_WIDTH = 10_000

# What an encoding without our signs has in their place.
_SPELLED = {"²": "2", "×": "x", "…": "...", "–": "-", "→": "->", "⁹": "^9"}


class OutputLost(Exception):  # noqa: N818 - no error of the work
    """Nobody receives what is written any more: a closed pipe, a full disk."""

    explained = True


def prepare_standard_streams() -> None:
    """Makes every character writable, and a stream that the caller has closed one that refuses what is written.

    Else the next file to be opened would take the place of the closed stream, and receive its words.
    """
    for descriptor, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest number that is free
    # Python has None for a closed stream. What cannot be said on standard error is not worth an end of the work.
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    sys.__stdout__ = sys.__stdout__ or sys.stdout
    codecs.register_error("spelled", _spell)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="spelled")  # type: ignore[union-attr]


def end_standard_output() -> OutputLost | None:
    """Writes what is still to be written; returns what prevented it, of which Python then does not complain itself."""
    try:
        with _writing():
            sys.stdout.flush()
    except OutputLost as lost:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return lost
    return None


@contextlib.contextmanager
def output(as_json: bool) -> Iterator[Words]:
    """Yields the console for words; with `as_json` nothing but `print_json` reaches standard output."""
    if not as_json:
        yield Words()
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield Words(stderr=True)


class Words(Console):
    """Prints text as it is: names of files, classes and layers are no markup, and no terminal obeys them."""

    def __init__(self, *, stderr: bool = False, **settings: Any) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False, **settings)

    def __exit__(self, *error: Any) -> None:
        """Writes what was printed, as Rich does at the end of its every method.

        Raises:
            OutputLost: If it cannot be written.
        """
        with _writing():
            super().__exit__(*error)

    def say(self, text: str) -> None:
        """Prints lines of text, which only a terminal folds."""
        self.print(text, soft_wrap=True)

    def render_str(self, text: str, **how: Any) -> Text:
        """Returns the text of a string, of which every string goes through here, the cells of tables too."""
        return super().render_str("\n".join(map(printable, text.split("\n"))), **how)

    def on_broken_pipe(self) -> None:
        """Rich would end the process here, and with it the work, without a word."""
        raise


def printable(text: str) -> str:
    """Returns text without what a terminal obeys, which becomes its Python escape.

    The library has the same for its messages, and takes seconds to load, which a wrong call should not.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_table(console: Console, table: Table) -> None:
    """Prints a table; only a terminal has a width that its cells are folded to."""
    if not console.is_terminal:
        console.width = _NO_WIDTH  # `print` takes a width too, and no larger one than the console's
    console.print(table)


def print_json(content: Mapping[str, Any]) -> None:
    """Prints one object on one line."""
    stream, text = sys.__stdout__, json.dumps(content, ensure_ascii=False)
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(content)
    with _writing():
        print(text, file=stream, flush=True)


def print_text(text: str) -> None:
    """Prints text for another program to read, to standard output."""
    with _writing():
        print(text, end="", flush=True)


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputLost(f"The output cannot be written: {error.strerror or error}.") from error


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_SPELLED.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text), error.end
