"""Pictures in tar files as WebDataset writes them: looked through once, then each is read by its place."""

from __future__ import annotations

import re
import tarfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_residual._errors import bad_data, printable, shown
from keras_residual._json import parse
from keras_residual._order import natural_key
from keras_residual.data.dataset import Dataset
from keras_residual.data.folders import part_of
from keras_residual.data.labels import class_names, encode_classes
from keras_residual.data.picture_set import Part, picture_set
from keras_residual.data.pictures import Picture, Span
from keras_residual.data.request import Request
from keras_residual.data.scratch import OpenFile

_PICTURES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff")
_LABELS = ("cls", "txt", "json")
_MOST_LABEL_BYTES = 2**20


def tar_files(folder: Path) -> list[Path]:
    """Returns the tar files of a folder, in natural order."""
    return sorted((path for path in folder.glob("*.tar") if path.is_file()), key=lambda path: natural_key(path.name))


def load_tars(path: Path, shards: Sequence[Path], request: Request) -> Dataset:
    """Returns the pictures of tar files.

    Members that are called alike up to the first dot of the file name belong together: one is the picture, and one
    the label: `.cls` or `.txt` with its text, or `.json` with the target, by default `label`. Files that begin with the
    name of a part, as `train-0001.tar` and `val-0001.tar` do, are of that part.

    Raises:
        ValueError: If a file is damaged or compressed, or a picture has no label.
    """
    request.check_kind("pictures")
    request.refuse("features", "drop", because="The data is pictures.")
    if request.task == "regression":
        raise bad_data(request.owner, "pictures have classes here, so the task is classification")
    found: dict[str, tuple[list[Path], list[Picture], list[str]]] = defaultdict(lambda: ([], [], []))
    named = {shard: part_of(re.split(r"[-_.]*\d", shard.stem)[0]) for shard in shards}
    split = "train" in named.values() and len({*named.values()} - {None}) > 1
    for shard in shards:
        files, pictures, labels = found[(named[shard] if split else None) or "train"]
        files.append(shard)
        for picture, label in _examples(shard, request):
            pictures.append(picture)
            labels.append(label)
    values = {part: np.array([*labels, None], object)[:-1] for part, (_, _, labels) in found.items()}
    if not len(values["train"]):
        raise bad_data(request.owner, "the tar files hold no pictures", f"They end in {', '.join(_PICTURES)}.")
    classes = request.classes or class_names(values["train"], owner=request.owner)
    if len(classes) == 1:
        raise bad_data(
            request.owner, f"there is only the class {shown(classes[0])}, and telling classes apart needs two at least"
        )
    parts = {
        part: Part(files[0].name, pictures, encode_classes(values[part], classes, owner=request.owner))
        for part, (files, pictures, _) in found.items()
    }
    return picture_set(path, parts, classes, request)


def _examples(shard: Path, request: Request) -> list[tuple[Picture, str]]:
    file = OpenFile(shard.open("rb"))
    pictures: dict[str, tuple[Picture, str]] = {}
    labels: dict[str, str] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                key, suffix = f"{folder}/{stem}", suffix.lower()
                if not member.isfile():
                    continue
                if suffix in _PICTURES:
                    piece = Span(file, member.offset_data, member.size)
                    pictures[key] = Picture(f"{shard}:{member.name}", piece), member.name
                elif suffix in _LABELS and member.size <= _MOST_LABEL_BYTES:
                    labels[key] = _label(file.read(member.offset_data, member.size), suffix, member.name, request)
    except tarfile.TarError as error:
        raise bad_data(
            request.owner, f"the file {printable(shard)} cannot be read as tar ({printable(error)})",
            "Replace it; unpack one that is compressed, since pictures are read by their places.",
        ) from None  # fmt: skip
    missing = [name for key, (_, name) in pictures.items() if key not in labels]
    if missing:
        raise bad_data(
            request.owner, f"{len(missing)} pictures of {printable(shard)} have no label, such as {shown(missing[0])}",
            "Beside NAME.jpg there must be NAME.cls, NAME.txt or NAME.json.",
        )  # fmt: skip
    return [(picture, labels[key]) for key, (picture, _) in pictures.items()]


def _label(content: bytes, suffix: str, name: str, request: Request) -> str:
    try:
        text = content.decode().strip()
        if suffix != "json":
            return text
        return str(parse(text)[request.target or "label"])
    except (ValueError, KeyError, TypeError):
        raise bad_data(
            request.owner, f"the label in {shown(name)} cannot be read",
            "Write text, or JSON with the key that --target names, by default `label`.",
        ) from None  # fmt: skip
