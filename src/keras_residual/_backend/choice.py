"""Which backend Keras is to run on: the one that it takes by itself where that is installed, else one that is.

Keras takes what `KERAS_BACKEND` names, else what its configuration file names, else TensorFlow, and fails where that is
not installed. It writes the file when it is first imported, so a file that names TensorFlow need not be anybody's wish.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from keras_residual._errors import listed, shown

BACKENDS = ("jax", "torch", "tensorflow")
KERAS_DEFAULT = "tensorflow"


@dataclass(frozen=True)
class BackendChoice:
    """A backend and why it is this one."""

    backend: str
    reason: str


def is_installed(backend: str) -> bool:
    """Whether the package is there; a folder that only happens to have its name is none."""
    spec = importlib.util.find_spec(backend)
    return spec is not None and spec.origin is not None


def choose(environ: Mapping[str, str], *, installed: Callable[[str], bool] = is_installed) -> BackendChoice:
    """Returns the backend to run on.

    Args:
        environ: The environment variables.
        installed: Tells whether a backend can be imported.

    Raises:
        ImportError: If no backend is installed, or `KERAS_BACKEND` names one that is not or that we do not run on.
    """
    there = [backend for backend in BACKENDS if installed(backend)]
    if not there:
        raise ImportError(
            f"Keras needs one of {listed(BACKENDS)}, and none of them is installed: pip install {BACKENDS[0]}"
        )
    named, file = environ.get("KERAS_BACKEND"), keras_file(environ)
    if named and named not in there:
        rule, way_out = "keras-residual does not run on", f"Set it to {' or '.join(there)}."
        if named in BACKENDS:
            rule, way_out = "is not installed", f"{way_out[:-1]}, or: pip install {named}"
        raise ImportError(f"KERAS_BACKEND names {shown(named)}, which {rule}. {way_out}")
    if named:
        return BackendChoice(named, "KERAS_BACKEND names it")
    in_file = _backend_in(file)
    if in_file in there:
        return BackendChoice(in_file, f"{file} names it")
    if in_file is None and KERAS_DEFAULT in there:
        return BackendChoice(KERAS_DEFAULT, "the default of Keras")
    return BackendChoice(there[0], f"installed; {in_file or KERAS_DEFAULT}, which Keras would take, is not")


def keras_file(environ: Mapping[str, str]) -> Path:
    """Returns where Keras looks for its configuration, which need not be there."""
    if "KERAS_HOME" in environ:
        return Path(os.path.expanduser(environ["KERAS_HOME"])) / "keras.json"  # noqa: PTH111 - as Keras does it
    home = os.path.expanduser("~")  # noqa: PTH111 - of a user without a home `Path.home` makes an error
    return Path(home if os.access(home, os.W_OK) else "/tmp") / ".keras" / "keras.json"


def _backend_in(file: Path) -> str | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # what Keras says of it is said when it is imported
        return None
    backend = content.get("backend") if isinstance(content, dict) else None
    return backend if isinstance(backend, str) else None
