"""Writing a model by another backend than this process has: in a child process, over a `.keras` file.

python -m keras_residual.deploy.child PARENT    # with folders to work in on standard input, a JSON string a line
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras

from keras_residual._errors import printable
from keras_residual.deploy.formats import FORMATS
from keras_residual.deploy.formats.base import Format, Options
from keras_residual.deploy.signature import Port, Signature

_MODEL, _JOB, _FAILURE, _DONE = "model.keras", "job.json", "failure.json", "done"


class ExportError(RuntimeError):
    """A model that could not be exported; what was at the path before is still there."""

    explained = True


_ONE_BATCH_SIZE = (
    "the batch cannot be left open, as with a recurrent layer. Pass `batch_size=`, or make recurrent layers with "
    "unroll=True."
)
_REASONS = {
    r"TensorListReserve.*element_shape": _ONE_BATCH_SIZE,
    r"Constraints violated \(batch\)": _ONE_BATCH_SIZE,
    r"'tf\.(\w+)' op is neither a custom op nor a flex op": r"LiteRT has no operator for \1; export to another format, "
    "or make the model without that operation.",
}
"""What frameworks say at length, and what that comes to; the first that is found counts."""


def reason_of(error: Exception) -> str:
    """Returns in plain words why a framework did not write a model, or else what it says itself."""
    said = f"{type(error).__name__}: {error}"
    for pattern, words in _REASONS.items():
        if found := re.search(pattern, said, re.DOTALL):
            return found.expand(words)
    return said


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
        "floatx": keras.config.floatx(),
        "image_data_format": keras.config.image_data_format(),
    }
    (folder / _JOB).write_text(json.dumps(job), encoding="utf-8")
    with _writer(backend) as child:
        try:
            status = child.work(folder, timeout)
        except TimeoutError:
            raise ExportError(
                f"Writing {made.name} was not done after {timeout:g} s. Pass a longer `timeout=`, or a smaller model."
            ) from None
        if status:
            raise ExportError(f"Writing {made.name} by {backend} failed: {child.reason(status)}")
    if (folder / _FAILURE).is_file():
        reason = json.loads((folder / _FAILURE).read_text(encoding="utf-8"))
        raise ExportError(f"Writing {made.name} by {backend} failed: {reason}")


class _Child:
    """A process with another backend that does one job after another."""

    def __init__(self, backend: str) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name if __spec__ else __name__, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=environment_of(backend) | {"CUDA_VISIBLE_DEVICES": ""},
            start_new_session=True,  # so that Ctrl-C comes here alone
        )
        _running.add(self)

    def work(self, folder: Path, timeout: float) -> int:
        """Returns 0 when the job in a folder is done, else the status that the process has ended with.

        Raises:
            TimeoutError: If that takes longer than `timeout` seconds.
        """
        end, given = time.monotonic() + timeout, self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # it has ended, and its status says how
            if given is not None:
                given.write(json.dumps(str(folder.resolve())).encode() + b"\n")
                given.flush()
        while not (folder / _DONE).exists():
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(min(_LOOK_SECONDS, max(end - time.monotonic(), 0))) or _NOT_DONE
            if time.monotonic() >= end:
                raise TimeoutError
        return 0

    def reason(self, status: int) -> str:
        """Returns what it has ended of."""
        if status < 0:
            name = signal.Signals(-status).name
            return f"its process was killed by {name}, as a system does that runs out of memory."
        self._output.seek(0)
        lines = [line for line in self._output.read().decode(errors="replace").splitlines() if line.strip()]
        return printable(lines[-1] if lines else f"its process ended with status {status}", 1000)

    def end(self) -> None:
        """Ends the process, whatever it does."""
        _running.discard(self)
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL) if hasattr(os, "killpg") else self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._output.close()


_running: set[_Child] = set()
_LOOK_SECONDS = 0.05
_NOT_DONE = 1
"""Status of a process that ended well without its job done."""

_kept: ContextVar[dict[str, _Child] | None] = ContextVar("_kept", default=None)


@contextlib.contextmanager
def keeping_children() -> Iterator[None]:
    """Within it one process of each backend does all that is written, so that its framework is imported once."""
    children: dict[str, _Child] = {}
    token = _kept.set(children)
    try:
        yield
    finally:
        _kept.reset(token)
        for child in children.values():
            child.end()


def leave() -> None:
    """Ends the processes that write. For a process that is about to end, from another thread than that of the work."""
    for child in tuple(_running):
        child.end()


@contextlib.contextmanager
def _writer(backend: str) -> Iterator[_Child]:
    children = _kept.get()
    child = (children or {}).pop(backend, None) or _Child(backend)
    try:
        yield child
    except BaseException:
        child.end()
        raise
    if children is None:
        child.end()
    else:
        children[backend] = child


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


def _do(folder: Path) -> None:
    job = json.loads((folder / _JOB).read_text(encoding="utf-8"))
    tempfile.tempdir = str(folder)  # what a process that is killed had there goes with the folder
    try:
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
        text = printable(error if isinstance(error, ExportError) else reason_of(error), 2000)
        (folder / _FAILURE).write_text(json.dumps(text), encoding="utf-8")
    (folder / _DONE).touch()


def _main() -> None:
    _watch(int(sys.argv[1]))
    for line in sys.stdin:
        _do(Path(json.loads(line)))
        keras.utils.clear_session()


if __name__ == "__main__":
    _main()
