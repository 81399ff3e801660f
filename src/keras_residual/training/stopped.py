"""A run that ended early: why, in words, and what of it is on the disk."""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from keras_residual._atomic import is_disk_full
from keras_residual._errors import printable
from keras_residual.training.run_directory import RunDirectory

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")

_runs: list[tuple[RunDirectory, Callable[[], str], Heeding]] = []
"""What is being worked on, each with what says what is kept of it, and what heeds signals for it."""


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


class Heeding(keras.callbacks.Callback):
    """Raises an interrupt once more that Keras has swallowed: it drops one that comes while it reads a batch's numbers.

    Within the block each signal that makes an exception in the main thread is noted. While it `waits`, the exception
    is raised by `check` alone, so that what is being done is completed first; a second signal does not wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits = False
        self.rescue: Callable[[], None] = lambda: None
        self._stop: BaseException | None = None
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self._stop is not None

    def __enter__(self) -> Heeding:
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)):
                handler = signal.getsignal(number)
                if callable(handler):
                    self._before[number] = handler
                    signal.signal(number, self._noting(handler))
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises what a signal has raised already."""
        if self._stop is not None:
            raise self._stop

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Checks."""
        self.check()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Checks."""
        self.check()

    def on_test_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Checks."""
        self.check()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Checks."""
        self.check()

    def _noting(self, handler: Callable[..., Any]) -> Callable[..., None]:
        def note(*arguments: Any) -> None:
            waits = self.waits and not self.asked
            try:
                handler(*arguments)
            except BaseException as stop:
                self._stop = stop
                if not waits:
                    raise

        return note


@contextmanager
def keeping(run: RunDirectory, kept: Callable[[], str] | None = None) -> Iterator[Heeding]:
    """Around the work on a run: says of any end before its time what was kept; Ctrl-C stays a KeyboardInterrupt.

    Yields a callback for `fit`, which looks for interrupts that Keras has swallowed.

    Args:
        run: The run directory.
        kept: Says what of use is on the disk; by default the directory does.

    Raises:
        TrainingStopped: For any exception, whose traceback goes to `log.txt`.
        KeyboardInterrupt: With a note about what was kept.
    """
    kept = kept or run.kept
    with run.alone(), Heeding() as heeding:
        _runs.append((run, kept, heeding))
        try:
            yield heeding
            heeding.check()
        except KeyboardInterrupt as interrupt:
            heeding.rescue()
            run.try_to_log(f"Stopped by {interrupt.args[0] if interrupt.args else 'Ctrl-C'}.")
            interrupt.add_note(f"{kept()} {run.how_it_goes_on()}".rstrip())
            raise
        except Exception as error:
            explained = getattr(error, "explained", False)
            run.try_to_log(f"Stopped: {error}" if explained else "".join(traceback.format_exception(error)))
            # Numbers that are none, and too little memory, would end it there again.
            again = isinstance(error, FloatingPointError) or is_out_of_memory(error)
            how = "" if again else f" {run.how_it_goes_on()}".rstrip()
            raise TrainingStopped(f"Training stopped: {_reason(error, run)} {kept()}{how}", run) from error
        finally:
            _runs.pop()


def leave(by: str) -> list[str]:
    """Writes what is still to be kept of each run that is being worked on, and returns what is kept of it.

    For a process that is about to end, from another thread than that of the work.
    """
    for run, _, heeding in _runs:
        heeding.rescue()
        run.try_to_log(f"Stopped by {by}.")
    return [f"{kept()} {run.how_it_goes_on()}".rstrip() for run, kept, _ in _runs]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that there is no memory left; each framework has a word of its own for it."""
    words = ("can't allocate memory", "out of memory", "RESOURCE_EXHAUSTED", "OOM when allocating")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def _reason(error: Exception, run: RunDirectory) -> str:
    if getattr(error, "explained", False):
        return str(error)
    if is_disk_full(error):
        return f"the disk of {printable(run.path)} is full. Free space, or choose another place: --out DIR."
    if is_out_of_memory(error):
        return "there is not enough memory. A smaller batch_size, image size or network needs less."
    if isinstance(error, OSError):
        return f"{error.strerror or error} ({printable(error.filename or run.path)})."
    return f"unexpected {type(error).__name__}: {error}. The traceback is in {printable(run.log_file)}."
