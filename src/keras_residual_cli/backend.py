"""Keras started without chatter, on a backend that is said in one line."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def start_keras() -> None:
    """Imports the library, which chooses a backend and imports Keras, and says on standard error which it is.

    Raises:
        ImportError: If there is no backend to run on.
    """
    if "keras_residual._backend" in sys.modules:  # called from a program that has chosen
        return
    with _quiet_start():
        backend = importlib.import_module("keras_residual._backend")
    if backend.BACKEND != "tensorflow":
        # Keras imports an installed TensorFlow when it first saves a model, whatever it runs on.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    if backend.CHOICE is not None:
        from keras_residual._errors import printable

        said = printable(f"Backend: {backend.CHOICE.backend} ({backend.CHOICE.reason})")
        with suppress(OSError):  # nobody listens
            print(_dim(said), file=sys.stderr, flush=True)


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Keeps what the frameworks write while they are imported out of the terminal; shows it if the import fails.

    TensorFlow writes to the file descriptor before it has read its own log level, so the descriptor is turned away.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    for name in ("jax", "tensorflow", "torch", "absl", "matplotlib"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115
    except OSError:  # no folder for temporary files can be written to
        yield
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    with file as chatter:
        os.dup2(chatter.fileno(), 2)
        try:
            yield
        except BaseException:
            chatter.seek(0)
            os.write(terminal, chatter.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)


def _dim(text: str) -> str:
    return f"\033[2m{text}\033[0m" if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else text
