"""A folder of pictures: one sub-folder a class, in parts for training, validation and testing where it has such."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from keras_residual._errors import bad_data, listed, shown
from keras_residual._order import composed, natural_key
from keras_residual.data.dataset import Dataset
from keras_residual.data.labels import check_names, encode_classes
from keras_residual.data.picture_set import Part, picture_set
from keras_residual.data.pictures import Picture
from keras_residual.data.request import Request

PartName = Literal["train", "validation", "test"]
PART_NAMES: Mapping[str, PartName] = {
    **dict.fromkeys(("train", "training", "train_set", "training_set", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "val_set", "valid_set", "validation_set", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "test_set", "testing_set", "testset"), "test"),
}
"""What people call a folder or a file of a part, in small letters and with `_` for `-` and blanks."""
# What Windows and macOS write into folders unasked; hidden files are passed over as well.
_LITTER = ("thumbs.db", "desktop.ini", "__macosx")


def part_of(name: str) -> PartName | None:
    """Returns which part is called so; None for another name.

    Example:
        >>> part_of("Training-Set"), part_of("cats")
        ('train', None)
    """
    return PART_NAMES.get(name.casefold().replace("-", "_").replace(" ", "_"))


@dataclass
class _Layout:
    """Where the pictures of each part lie: a name of the part as it is there, and folders with their classes."""

    names: dict[str, str]
    folders: dict[str, list[tuple[Path, str]]]
    around: dict[str, Path]
    unused: list[str] = field(default_factory=list)


def load_folder(folder: Path, request: Request) -> Dataset:
    """Returns the pictures under the folder; the names of the sub-folders are the classes, in natural order.

    `folder/CLASS/…/picture` is split by seed, each class in its share. `folder/PART/CLASS/…` and `folder/CLASS/PART/…`
    are taken as they are, where there is a training part and another one; `PART_NAMES` says what they may be called.
    The validation part is what the best epoch is chosen by. Where there is no test part, it is drawn from the training
    part. Hidden files, and files that lie beside the class folders, are passed over, and the data say so. Nothing is
    written.

    Raises:
        ValueError: If there are no class folders, one only, an empty one, or more broken pictures than may be.
    """
    request.check_kind("pictures")
    request.refuse("target", "features", "drop", because="The folders are the classes.")
    if request.task == "regression":
        raise bad_data(request.owner, "a folder of pictures has classes, so its task is classification")
    layout, hidden = _layout(folder, request), list[str]()
    pictures, labels = _labelled(layout, "train", request, hidden, may_be_empty=bool(request.classes))
    classes = request.classes or tuple(sorted(set(labels), key=natural_key))
    check_names(classes, owner=request.owner)
    if len(classes) < 2:
        inside = layout.names["train"] != str(folder)
        only = layout.folders["train"][0][0]
        where = f" in {layout.names['train']}" if inside else ""
        hint = f" Or name the folder that holds the classes: {only}." if _classes(only) else ""
        raise bad_data(
            request.owner, f"there is only the class {shown(next(iter(classes)))}{where}, and telling classes apart "
            "needs two at least", f"Add a sub-folder of pictures for another class.{hint}",
        )  # fmt: skip
    y = encode_classes(np.array(labels, object), classes, owner=request.owner, what="sub-folder")
    parts = {"train": Part(layout.names["train"], pictures, y)}
    for name in layout.folders.keys() - {"train"}:
        pictures, labels = _labelled(layout, name, request, hidden, may_be_empty=True)
        what = f"sub-folder of {layout.names[name]}"
        y = encode_classes(np.array(labels, object), classes, owner=request.owner, what=what)
        parts[name] = Part(layout.names[name], pictures, y)
    return picture_set(
        folder, parts, classes, request, notes=_notes(folder, layout), said=_ignored(folder, layout, hidden)
    )


def picture_files(folder: Path, hidden: list[str] | None = None) -> list[Picture]:
    """Returns the files under a folder at any depth, in natural order; hidden ones and litter are passed over.

    Args:
        folder: The folder.
        hidden: Is added the names of what is passed over.
    """
    pictures = [str(path) for path in _entries(folder, hidden) if path.is_file()]
    return [Picture(path, path) for path in sorted(pictures, key=natural_key)]


def _entries(folder: Path, hidden: list[str] | None = None) -> Iterator[Path]:
    """Yields what lies under a folder and is no folder to be gone into: files, pipes, links to folders."""
    hidden = [] if hidden is None else hidden
    for parent, folders, files in os.walk(folder, onerror=_cannot_be_read):
        hidden += [name for name in (*folders, *files) if _passed_over(name)]
        folders[:] = [name for name in folders if not _passed_over(name)]
        yield from (Path(parent, name) for name in files if not _passed_over(name))
        yield from (path for path in (Path(parent, name) for name in folders) if path.is_symlink())


def _cannot_be_read(error: OSError) -> None:
    raise error


def _layout(folder: Path, request: Request) -> _Layout:
    """Returns how parts and classes lie in each other."""
    top = _classes(folder)
    by_part = _by_part(top, folder, request)
    train = by_part.get("train")
    # A class may be called "train": only a folder of folders is a part, or an empty one beside a folder of folders.
    others = [path for name, path in by_part.items() if name != "train"]
    if train and others and (_classes(train) or (any(map(_classes, others)) and not picture_files(train))):
        flat = [path for path in others if not _classes(path) and picture_files(path)]  # pictures without labels
        used = {name: path for name, path in by_part.items() if path not in flat}
        return _Layout(
            {name: f"{path.name}/" for name, path in used.items()},
            {name: [(each, each.name) for each in _classes(path)] for name, path in used.items()},
            used,
            [f"{path.name}/ has no sub-folders that would tell the classes, and is not used." for path in flat],
        )
    within = {each: _by_part(_classes(each), each, request) for each in top}
    if within and all("train" in parts and len(parts) > 1 for parts in within.values()):
        names = [name for name in ("train", "validation", "test") if any(name in parts for parts in within.values())]
        return _Layout(
            {name: f"CLASS/{next(parts[name].name for parts in within.values() if name in parts)}/" for name in names},
            {name: [(parts[name], each.name) for each, parts in within.items() if name in parts] for name in names},
            dict.fromkeys(names, folder),
        )
    return _Layout({"train": str(folder)}, {"train": [(each, each.name) for each in top]}, {"train": folder})


def _by_part(folders: Sequence[Path], within: Path, request: Request) -> dict[PartName, Path]:
    """Returns the folders that are called as parts, by part."""
    found: dict[PartName, Path] = {}
    for path in folders:
        part = part_of(path.name)
        if part in found and _classes(path) and _classes(found[part]):
            raise bad_data(
                request.owner, f"both {shown(found[part].name)} and {shown(path.name)} in {within} are called as the "
                f"{part} part", "Put them together or rename one.",
            )  # fmt: skip
        if part is not None and (part not in found or _classes(path)):
            found[part] = path
    return found


def _notes(folder: Path, layout: _Layout) -> tuple[str, ...]:
    """Returns sentences about what may have been meant to count, and does not."""
    parts = list(layout.around.values())
    beside = [path for parent in {folder, *parts} for path in parent.iterdir() if _is_picture_by_name(path)]
    others = [path for path in _classes(folder) if path not in parts] if folder not in parts else []
    below = [path for folders in layout.folders.values() for each, _ in folders for path in _entries(each)]
    links = [path for part in set(parts) for path in part.iterdir() if path.is_symlink() and not path.exists()]
    notes = []
    for what, paths in (
        ("picture{s} outside the class folders", beside),
        ("folder{s} beside those for training and testing", others),
        ("link{s} or pipe{s} among the pictures", [*links, *(path for path in below if not path.is_file())]),
    ):
        if paths:
            one, example = len(paths) == 1, shown(os.fsencode(min(paths).relative_to(folder)).decode(errors="replace"))
            notes.append(
                f"{len(paths)} {what.format(s='' if one else 's')} {'is' if one else 'are'} not used"
                f"{':' if one else ', such as'} {example}."
            )
    return (*layout.unused, *notes)


def _ignored(folder: Path, layout: _Layout, hidden: list[str]) -> tuple[str, ...]:
    """Returns a sentence about files that nobody takes for pictures."""
    parents = {folder, *layout.around.values()}
    beside = [path.name for parent in parents for path in parent.iterdir() if path.is_file()]
    names = sorted({*hidden, *(name for name in beside if not _is_picture_by_name(Path(name)))}, key=natural_key)
    if not names:
        return ()
    return (f"Ignored, since they are hidden or lie beside the class folders: {listed(names)}.",)


def _is_picture_by_name(path: Path) -> bool:
    kind = mimetypes.guess_type(path.name)[0] or ""
    return kind.startswith("image/") and not _passed_over(path.name) and not path.is_dir()


def _classes(folder: Path) -> list[Path]:
    folders = [path for path in folder.iterdir() if path.is_dir() and not _passed_over(path.name)]
    return sorted(folders, key=lambda path: natural_key(path.name))


def _labelled(
    layout: _Layout, part: str, request: Request, hidden: list[str], *, may_be_empty: bool
) -> tuple[list[Picture], list[str]]:
    """Returns the pictures under the class folders of a part and, for each, the name of its class."""
    folder = layout.around[part]
    if not layout.folders[part]:
        files = picture_files(folder)
        holds = f"holds {len(files)} file{'s' if len(files) > 1 else ''} and no sub-folder" if files else "is empty"
        raise bad_data(request.owner, f"the folder {folder} {holds}", "Put the pictures into one sub-folder a class.")
    pictures: list[Picture] = []
    labels: list[str] = []
    for class_folder, label in layout.folders[part]:
        files = picture_files(class_folder, hidden)
        if not files and not may_be_empty:
            raise bad_data(
                request.owner, f"the class folder {class_folder} holds no pictures", "Put pictures there or remove it."
            )
        pictures += files
        labels += [composed(label)] * len(files)
    if not pictures and part == "train":
        raise bad_data(request.owner, f"there are no pictures under {folder}", "Put pictures into its sub-folders.")
    return pictures, labels


def _passed_over(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _LITTER
