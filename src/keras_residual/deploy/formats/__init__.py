"""Formats that models are exported to: a file each, and this list of them."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from keras_residual._errors import bad_argument, unknown_name
from keras_residual.deploy.formats.base import Format
from keras_residual.deploy.formats.litert import LiteRt
from keras_residual.deploy.formats.onnx import Onnx
from keras_residual.deploy.formats.openvino import OpenVino
from keras_residual.deploy.formats.pt2 import Pt2
from keras_residual.deploy.formats.saved_model import SavedModel

FORMATS: MappingProxyType[str, Format] = MappingProxyType(
    {made.name: made for made in (Onnx(), OpenVino(), LiteRt(), SavedModel(), Pt2())}
)
"""Formats by the name that `format=` takes."""


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
    if name not in FORMATS:
        raise unknown_name(owner, "format", name, FORMATS)
    made = FORMATS[name]
    if made.suffix and path.suffix != made.suffix:
        raise bad_argument(owner, "path", f"a path that ends in {made.suffix}, as format={name!r} has it", str(path))
    return made
