"""A run that ended early: why, in words, and what of it is on the disk."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from keras_residual.training.fit import NotFiniteError
from keras_residual.training.run_directory import RunDirectory


class TrainingStopped(RuntimeError):  # noqa: N818 - what is on the disk can be used; this is no mistake of the caller
    """Training ended before its time; the text says why, what was kept and where.

    Args:
        text: The whole message.
        run: The run directory.
    """

    explained = True

    def __init__(self, text: str, run: RunDirectory) -> None:
        super().__init__(text)
        self.run = run


@contextmanager
def keeping(run: RunDirectory) -> Iterator[None]:
    """Around the work on a run: says of any end before its time what was kept; Ctrl-C stays a KeyboardInterrupt.

    Raises:
        TrainingStopped: For any exception, whose traceback goes to `log.txt`.
        KeyboardInterrupt: With a note about what was kept.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        _log(run, "Stopped by Ctrl-C.")
        interrupt.add_note(run.kept())
        raise
    except Exception as error:
        _log(run, "".join(traceback.format_exception(error)))
        raise TrainingStopped(f"Training stopped: {_reason(error, run)} {run.kept()}", run) from error


def is_disk_full(error: BaseException | None) -> bool:
    """Whether the error, or one that it came from, says that no space is left.

    HDF5 reports a failed write by exceptions of its own, of several types, with the system's number in the text.
    """
    while error is not None:
        text = str(error)
        if getattr(error, "errno", None) == errno.ENOSPC or f"errno = {errno.ENOSPC}" in text:
            return True
        error = error.__cause__ or error.__context__
    return False


def _reason(error: Exception, run: RunDirectory) -> str:
    if isinstance(error, NotFiniteError):
        return f"{error}. Try a smaller learning rate, for example --set optimizer.learning_rate=0.0001."
    if is_disk_full(error):
        return f"the disk of {run.path} is full. Free space, or choose another place: --out DIR."
    if isinstance(error, OSError):
        return f"{error.strerror or error} ({error.filename or run.path})."
    return f"unexpected {type(error).__name__}: {error}. The traceback is in {run.log_file}."


def _log(run: RunDirectory, text: str) -> None:
    # On a full disk or a read-only one there is no log either.
    with suppress(OSError):
        run.log(text.rstrip())
