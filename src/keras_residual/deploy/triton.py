"""A folder that NVIDIA Triton serves: a model repository with a model, its configuration and its labels."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keras_residual._atomic import folder_beside
from keras_residual._errors import bad_argument, shown
from keras_residual.deploy.formats.base import Format, Port
from keras_residual.deploy.signature import OWNER

MAX_BATCH_SIZE = 32
QUEUE_DELAY = 1000
"""Microseconds that a request waits for others, with which it makes a batch."""

_FIRST_LINE = "# Written by keras-residual."
_CONFIG, _LABELS, _NOTE, _VERSION = "config.pbtxt", "labels.txt", "note.json", "1"
_TYPES = {
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "bool": "TYPE_BOOL",
    **{f"{sign}int{bits}": f"TYPE_{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


def model_name(target: Path) -> str:
    """Returns the name by which Triton serves a file: that of the file, of ASCII letters, digits, `_`, `-` and `.`."""
    return re.sub(r"[^\w.-]+", "_", target.stem, flags=re.ASCII).strip("._") or "model"


def check_serve_folder(made: Format, target: Path, folder: Path, *, overwrite: bool) -> None:
    """Raises an error where no model repository can be written, or something there is not to be replaced.

    Args:
        made: The format.
        target: The file that is exported.
        folder: The model repository, which may hold other models already.
        overwrite: Whether a model of the same name may be replaced, if this library has written it.

    Raises:
        ValueError: If Triton does not serve the format.
        FileNotFoundError: If there is no folder for the repository.
        FileExistsError: If something is in the way.
    """
    if not made.triton:
        rule = "None where the format is neither 'onnx' nor 'openvino'"
        raise bad_argument(OWNER, "serve_folder", rule, str(folder), "Export to one of these to serve it with Triton.")
    if not folder.parent.is_dir():
        raise FileNotFoundError(f"{OWNER}: there is no folder {shown(str(folder.parent))}. Make it first.")
    if folder.resolve() == target.resolve():
        raise bad_argument(OWNER, "serve_folder", "another path than that of the file", str(folder))
    if os.path.lexists(folder) and not folder.is_dir():
        raise FileExistsError(f"{OWNER}: {shown(str(folder))} is a file, and no folder of models. Choose another path.")
    model = folder / model_name(target)
    if not os.path.lexists(model):
        return
    if not _is_ours(model):
        raise FileExistsError(
            f"{OWNER}: {shown(str(model))} is not from keras-residual, or holds more than it wrote, and is not "
            "replaced. Choose another folder, or export to a file of another name."
        )
    if not overwrite:
        raise FileExistsError(
            f"{OWNER}: {shown(str(model))} exists. Choose another folder, or replace it with overwrite=True (on the "
            "command line --overwrite)."
        )


@contextmanager
def serve_folder(
    made: Format, files: Sequence[Path], ports: tuple[Sequence[Port], Sequence[Port]], note: Mapping[str, Any],
    target: Path, folder: Path,
) -> Iterator[Callable[[], None]]:  # fmt: skip
    """Writes a model repository beside its place, and yields what puts it there, whole.

    Args:
        made: The format.
        files: The files of the exported model, wherever they lie now.
        ports: Inputs and outputs as the file has them.
        note: What is known about the model.
        target: The path of the file that is exported, after which the model is named.
        folder: The model repository.
    """
    name = model_name(target)
    with folder_beside(folder) as work:
        repository = work / "repository"
        model, version = repository / name, repository / name / _VERSION
        version.mkdir(parents=True)
        for file in files:
            # Weights beside an ONNX file are found by the name that is written in it.
            shutil.copyfile(file, version / (file.name if file.suffix == ".data" else f"model{file.suffix}"))
        labels = note.get("labels")
        (model / _CONFIG).write_text(config_of(made, name, *ports, labels), encoding="utf-8")
        if labels:
            lines = (" ".join(str(label).split()) for label in labels)
            (model / _LABELS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        (model / _NOTE).write_text(json.dumps(note, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

        def publish() -> None:
            place = folder / name
            if not folder.exists():
                repository.rename(folder)
                return
            former = work / "former"
            if os.path.lexists(place):
                place.rename(former)
            try:
                model.rename(place)
            except OSError:
                if former.exists():
                    former.rename(place)
                raise

        yield publish


def config_of(
    made: Format, name: str, inputs: Sequence[Port], outputs: Sequence[Port], labels: Sequence[str] | None
) -> str:
    """Returns the text of `config.pbtxt`.

    Args:
        made: The format.
        name: Name of the model.
        inputs: Its inputs.
        outputs: Its outputs.
        labels: Names of the classes, or None.
    """
    # Triton leaves the axis of the batch out where it makes the batches.
    batches = all(port.shape and port.shape[0] is None for port in (*inputs, *outputs))
    named = next((port.name for port in outputs if labels and port.shape[-1:] == (len(labels),)), None)
    lines = [
        _FIRST_LINE,
        f"name: {json.dumps(name)}",
        f"backend: {json.dumps(made.triton)}",
        f"default_model_filename: {json.dumps(f'model{made.suffix}')}",
        f"max_batch_size: {MAX_BATCH_SIZE if batches else 0}",
    ]
    for kind, ports in (("input", inputs), ("output", outputs)):
        entries = [_entry(port, batches, port.name == named and kind == "output") for port in ports]
        lines.append(f"{kind} [\n" + ",\n".join(entries) + "\n]")
    if batches:
        lines.append(f"dynamic_batching {{\n  max_queue_delay_microseconds: {QUEUE_DELAY}\n}}")
    return "\n".join(lines) + "\n"


def _entry(port: Port, batches: bool, has_labels: bool) -> str:
    sizes = [-1 if size is None else size for size in port.shape[1 if batches else 0 :]]
    # Triton wants at least one axis, and takes it off again.
    parts = [
        f"name: {json.dumps(port.name)}",
        f"data_type: {_TYPES[port.dtype]}",
        f"dims: [ {', '.join(map(str, sizes or [1]))} ]",
        *([] if sizes else ["reshape: { shape: [ ] }"]),
        *([f"label_filename: {json.dumps(_LABELS)}"] if has_labels else []),
    ]
    return "  {\n" + "\n".join(f"    {part}" for part in parts) + "\n  }"


def _is_ours(model: Path) -> bool:
    config = model / _CONFIG
    if model.is_symlink() or not model.is_dir() or not config.is_file():
        return False
    if {path.name for path in model.iterdir()} - {_CONFIG, _LABELS, _NOTE, _VERSION}:
        return False
    return config.read_text(encoding="utf-8", errors="replace").startswith(_FIRST_LINE)
