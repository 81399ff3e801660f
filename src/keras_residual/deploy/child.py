"""Writing a model by another backend than this process has: in a child process, over a `.keras` file.

python -m keras_residual.deploy.child FOLDER
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras

from keras_residual._errors import printable
from keras_residual.deploy.formats import FORMATS
from keras_residual.deploy.formats.base import Format, Options
from keras_residual.deploy.signature import Port, Signature

_MODEL, _JOB, _FAILURE, _OUTPUT = "model.keras", "job.json", "failure.json", "output.txt"


class ExportError(RuntimeError):
    """A model that could not be exported; what was at the path before is still there."""

    explained = True


def environment_of(backend: str) -> dict[str, str]:
    """Returns the environment of a process that runs Keras on a backend and imports what this one can."""
    return {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def write_in_child(
    model: keras.Model,
    signature: Signature,
    made: Format,
    path: Path,
    options: Options,
    *,
    backend: str,
    folder: Path,
    timeout: float,
) -> None:
    """Writes a model in a process with another backend.

    Args:
        model: The model.
        signature: Its signature.
        made: The format.
        path: Where it goes.
        options: How it is written.
        backend: The backend of the child.
        folder: An empty folder for what the two tell each other.
        timeout: Seconds after which the child is ended.

    Raises:
        ExportError: If the child fails, is killed, or takes too long.
    """
    modules = sorted(set(_foreign_modules(keras.saving.serialize_keras_object(model))))
    if "__main__" in modules:
        raise ExportError(
            f"The model has a class or function of the program that runs, which the process that writes {made.name} "
            f"cannot import. Move it to a module of its own, or export on the {backend} backend."
        )
    model.save(folder / _MODEL)
    job = {
        "format": made.name,
        "path": str(path.resolve()),
        "options": asdict(options),
        "inputs": [asdict(port) for port in signature.inputs],
        "outputs": [asdict(port) for port in signature.outputs],
        "structure": keras.tree.pack_sequence_as(signature.structure, list(range(len(signature.inputs)))),
        "modules": modules,
        "parent": os.getpid(),
        "floatx": keras.config.floatx(),
        "image_data_format": keras.config.image_data_format(),
    }
    (folder / _JOB).write_text(json.dumps(job), encoding="utf-8")
    environment = environment_of(backend) | {"CUDA_VISIBLE_DEVICES": ""}
    with (folder / _OUTPUT).open("w", encoding="utf-8") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", __spec__.name if __spec__ else __name__, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # so that Ctrl-C comes here alone
        )
        try:
            status = child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ExportError(
                f"Writing {made.name} was not done after {timeout:g} s. Pass a longer `timeout=`, or a smaller model."
            ) from None
        finally:
            _end(child)
    if status:
        raise ExportError(_reason(made, backend, status, folder))


def _end(child: subprocess.Popen[Any]) -> None:
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL) if hasattr(os, "killpg") else child.kill()
        child.wait()


def _reason(made: Format, backend: str, status: int, folder: Path) -> str:
    said = f"Writing {made.name} by {backend} failed: "
    if (folder / _FAILURE).is_file():
        return said + json.loads((folder / _FAILURE).read_text(encoding="utf-8"))
    if status < 0:
        name = signal.Signals(-status).name
        return f"{said}its process was killed by {name}, as a system does that runs out of memory."
    lines = [line for line in (folder / _OUTPUT).read_text(errors="replace").splitlines() if line.strip()]
    return f"{said}{printable(lines[-1] if lines else f'its process ended with status {status}', 1000)}"


def _foreign_modules(config: Any) -> Iterator[str]:
    """Yields the modules of the classes and functions of a serialised model that are neither Keras's nor ours."""
    if isinstance(config, dict):
        module = config.get("module") if "class_name" in config else None
        if module is None and config.get("registered_name") and "class_name" in config:
            found = keras.saving.get_registered_object(config["registered_name"])
            module = getattr(found, "__module__", None)
        if module and module.partition(".")[0] not in ("keras", "keras_residual", "builtins"):
            yield module
        for value in config.values():
            yield from _foreign_modules(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from _foreign_modules(value)


def _watch(parent: int) -> None:
    """Ends this process when the one that has started it has ended, which may have been killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    if os.name == "posix":  # elsewhere a process keeps the number of a parent that is gone
        threading.Thread(target=watch, daemon=True).start()


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ExportError(
            f"a class or function of the model is in the module {printable(module)!r}, which the process that writes "
            f"the file cannot import ({printable(error)}). Put its folder on PYTHONPATH, or export on this backend."
        ) from error


def _main(folder: Path) -> int:
    job = json.loads((folder / _JOB).read_text(encoding="utf-8"))
    try:
        _watch(job["parent"])
        for module in job["modules"]:
            _import(module)
        keras.config.set_floatx(job["floatx"])
        keras.config.set_image_data_format(job["image_data_format"])
        # Written by the process that started this one.
        model: Any = keras.saving.load_model(folder / _MODEL, compile=False, safe_mode=False)
        inputs, outputs = (
            tuple(Port(**{**port, "shape": tuple(port["shape"])}) for port in job[kind])
            for kind in ("inputs", "outputs")
        )
        signature = Signature(inputs, outputs, job["structure"])
        FORMATS[job["format"]].write(model, signature, Path(job["path"]), Options(**job["options"]))
    except Exception as error:
        traceback.print_exc()
        text = printable(error if isinstance(error, ExportError) else f"{type(error).__name__}: {error}", 2000)
        (folder / _FAILURE).write_text(json.dumps(text), encoding="utf-8")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
