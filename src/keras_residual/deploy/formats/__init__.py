"""Formats that models are exported to: a file each, and this list of them."""

from __future__ import annotations

import os
from pathlib import Path

from keras_residual._errors import bad_argument, unknown_name, wrong_type
from keras_residual.deploy.formats.base import Format
from keras_residual.deploy.formats.litert import LiteRt
from keras_residual.deploy.formats.onnx import Onnx
from keras_residual.deploy.formats.openvino import OpenVino
from keras_residual.deploy.formats.pt2 import Pt2
from keras_residual.deploy.formats.saved_model import SavedModel

FORMATS: dict[str, Format] = {made.name: made for made in (Onnx(), OpenVino(), LiteRt(), SavedModel(), Pt2())}
"""Formats by the name that `format=` takes; those of other packages can be added."""


def path_of(owner: str, path: object) -> Path:
    """Returns the path that was passed.

    Raises:
        TypeError: If it is none.
        ValueError: If it is empty, or holds what no file has in its name.
    """
    if not isinstance(path, str | os.PathLike):
        raise wrong_type(owner, "path", "a path", path)
    text = os.fspath(path)
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise bad_argument(owner, "path", "a path as text, not empty and without NUL", path)
    return Path(text)


def format_of(owner: str, path: Path, name: str | None = None) -> Format:
    """Returns the format of a name, or the one that the suffix of a path stands for.

    Args:
        owner: What was called, for messages.
        path: The file, or a folder for a SavedModel.
        name: A name of `FORMATS`; None to go by the suffix.

    Raises:
        ValueError: For an unknown name, a suffix of no format, or the suffix of another format.
    """
    suffixes = ", ".join(f"{made.suffix} ({made.name})" for made in FORMATS.values() if made.suffix)
    if name is None:
        found = next((made for made in FORMATS.values() if made.suffix == path.suffix), None)
        if found is None:
            rule = f"a path that ends in {suffixes}, or the name of a folder, without a suffix (saved_model)"
            raise bad_argument(owner, "path", rule, str(path), "Or name the format: format='onnx'.")
        return found
    if not isinstance(name, str):
        raise wrong_type(owner, "format", f"None or one of {', '.join(FORMATS)}", name)
    if name not in FORMATS:
        raise unknown_name(owner, "format", name, FORMATS)
    made = FORMATS[name]
    if made.suffix and path.suffix != made.suffix:
        raise bad_argument(owner, "path", f"a path that ends in {made.suffix}, as format={name!r} has it", str(path))
    return made
