"""Which backend the command runs on: chosen before Keras is imported, said in one line, started without chatter."""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from keras_residual_cli.failure import CallError

BACKENDS = ("jax", "torch", "tensorflow")

_WRITTEN_BY_KERAS = {
    "floatx": "float32",
    "epsilon": 1e-07,
    "backend": "tensorflow",
    "image_data_format": "channels_last",
}


@dataclass(frozen=True)
class Choice:
    """A backend and why it is this one."""

    backend: str
    reason: str


def start_keras() -> None:
    """Imports Keras on the chosen backend and says on standard error which it is.

    Raises:
        CallError: If no backend is installed, or the one that `KERAS_BACKEND` names is not.
    """
    if "keras" in sys.modules:  # called from a program that has chosen
        return
    choice = choose(os.environ, keras_file(os.environ), is_installed)
    print(_dim(f"Backend: {choice.backend} ({choice.reason})"), file=sys.stderr)
    os.environ["KERAS_BACKEND"] = choice.backend
    file = keras_file(os.environ)
    was_there = file.exists()
    with _quiet_start(choice.backend):
        importlib.import_module("keras_residual")
    # Keras, and an installed TensorFlow once more, write a file that names tensorflow, whatever they run on. Nobody
    # chose that, and left there it would move the next run to another backend.
    if not was_there and choice.backend != "tensorflow":
        atexit.register(_drop_unchosen, file)


def _drop_unchosen(file: Path) -> None:
    try:
        unchosen = json.loads(file.read_text(encoding="utf-8")) == _WRITTEN_BY_KERAS
    except (OSError, ValueError):
        return
    if unchosen:
        file.unlink(missing_ok=True)


def choose(environ: Mapping[str, str], file: Path, installed: Callable[[str], bool]) -> Choice:
    """Returns the backend that `KERAS_BACKEND` names, else Keras's file, else the first that is installed.

    Args:
        environ: The environment variables.
        file: Keras's own configuration file, which need not be there.
        installed: Tells whether a backend can be imported.
    """
    named = environ.get("KERAS_BACKEND")
    if named:
        if named not in BACKENDS:
            raise CallError(f"KERAS_BACKEND names {named!r}; keras-residual runs on {', '.join(BACKENDS)}.")
        if not installed(named):
            raise CallError(
                f"KERAS_BACKEND names {named!r}, which is not installed: pip install 'keras-residual[{named}]'"
            )
        return Choice(named, "KERAS_BACKEND names it")
    first = next((backend for backend in BACKENDS if installed(backend)), None)
    if first is None:
        raise CallError(
            f"No backend is installed. Install one of {', '.join(BACKENDS)}: pip install 'keras-residual[jax]'"
        )
    in_file = _backend_in(file)
    if in_file is None:
        return Choice(first, f"the first installed of {', '.join(BACKENDS)}")
    if in_file not in BACKENDS or not installed(in_file):
        return Choice(first, f"{file} names {in_file}, which is not installed; the first of those that are")
    return Choice(in_file, f"{file} names it")


def is_installed(backend: str) -> bool:
    """Whether the package is there; a folder that only happens to have its name is none."""
    spec = importlib.util.find_spec(backend)
    return spec is not None and spec.origin is not None


def keras_file(environ: Mapping[str, str]) -> Path:
    """Returns where Keras looks for its configuration."""
    if "KERAS_HOME" in environ:
        return Path(environ["KERAS_HOME"]).expanduser() / "keras.json"
    home = Path.home()
    return (home if os.access(home, os.W_OK) else Path("/tmp")) / ".keras" / "keras.json"


def _backend_in(file: Path) -> str | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # Keras too does without a file that it cannot read
        return None
    backend = content.get("backend") if isinstance(content, dict) else None
    return backend if isinstance(backend, str) else None


@contextmanager
def _quiet_start(backend: str) -> Iterator[None]:
    """Keeps what the frameworks write while they are imported out of the terminal; shows it if the import fails.

    TensorFlow writes to the file descriptor before it has read its own log level, so the descriptor is turned away.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    if backend != "tensorflow":
        # Keras imports an installed TensorFlow when it first saves a model, whatever it runs on.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    for name in (*BACKENDS, "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as chatter:
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
