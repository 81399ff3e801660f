"""What the user sees when something goes wrong: one line on standard error, and the exit status."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keras_residual_cli.output import printable

_LONGEST = 4000
"""The most characters of a line; the library's messages have no more."""


class CallError(Exception):
    """The call was wrong; the text says how to put it right."""


class StoppedFromOutside(Exception):  # noqa: N818 - no error
    """Ctrl-C or a signal; the text says which, and what was kept."""


def check_free(path: Path, choose: str = "Choose another.") -> None:
    """Raises where a file cannot be written: because something is there already, its folder is not, or takes no file.

    Args:
        path: The file.
        choose: How the message says to name another.
    """
    from keras_residual._atomic import check_can_be_made
    from keras_residual._errors import printable as bounded

    try:
        check_can_be_made(path)
    except OSError as error:
        raise CallError(f"{bounded(path)} cannot be written: {error.strerror}. {choose}") from error
    if path.is_symlink() and not path.exists():
        raise CallError(f"{path} is a link that leads nowhere. {choose}")
    if path.exists():
        raise CallError(f"{path} is there already and is not overwritten. {choose}")
    if not path.parent.is_dir():
        raise CallError(f"There is no folder {path.parent} to write {path.name} to.")


@contextmanager
def reading_the_call() -> Iterator[None]:
    """Around everything that only reads what the user named: an error in there means that the call was wrong."""
    try:
        yield
    except (ValueError, TypeError, ImportError, FileNotFoundError, FileExistsError, NotADirectoryError) as error:
        raise CallError(str(error)) from error
    except OSError as error:
        if error.errno is None:  # one of the library's own, whose text is the whole message
            raise CallError(str(error)) from error
        if error.errno == errno.ENAMETOOLONG:
            from keras_residual._errors import printable as bounded

            raise CallError(f"A name is longer than the file system takes: {bounded(error.filename)}.") from error
        raise


def say(text: str, *, status: int) -> int:
    """Prints one line on standard error and returns the status."""
    text = printable(" ".join(text.split()))
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
    with contextlib.suppress(OSError):  # nobody to hear it; the status says it too
        print(f"keras-residual: {text}", file=sys.stderr, flush=True)
    return status


def usage(error: Any) -> int:
    """A mistake that Typer found: an unknown option, a missing argument."""
    text = error.format_message()
    if not text:  # the call without arguments, to which Typer has answered with the help
        return 2
    context = getattr(error, "ctx", None)
    return say(f"{text} See: {context.command_path if context else 'keras-residual'} --help", status=2)


def work(error: Exception) -> int:
    """The work failed: a reason that was foreseen is the whole message, else the traceback goes to a file."""
    if getattr(error, "explained", False):
        return say(str(error), status=1)
    if isinstance(error, OSError):
        return say(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", status=1)
    text = f"unexpected {type(error).__name__}: {error}."
    try:
        handle, path = tempfile.mkstemp(prefix="keras-residual-", suffix="-log.txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write("".join(traceback.format_exception(error)))
    except OSError:  # a full disk, or no folder for temporary files
        return say(f"{text} The traceback could not be written.", status=1)
    return say(f"{text} The traceback is in {path}", status=1)
