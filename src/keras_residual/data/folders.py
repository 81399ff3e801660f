"""A folder of pictures: one sub-folder a class, or `train/` and `test/` of those."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from keras_residual._errors import bad_data, shown
from keras_residual._order import composed, natural_key
from keras_residual.data.dataset import Dataset
from keras_residual.data.labels import check_names, encode_classes
from keras_residual.data.pictures import Picture, choose_shape, decode, read_headers
from keras_residual.data.request import Request, source_name
from keras_residual.data.split import split_indices

TEST_FOLDERS = ("test", "val", "valid", "validation")
# What Windows and macOS write into folders unasked; hidden files are passed over as well.
_LITTER = ("thumbs.db", "desktop.ini", "__macosx")


def load_folder(folder: Path, request: Request) -> Dataset:
    """Returns the pictures under the folder; the names of the sub-folders are the classes, in natural order.

    `folder/CLASS/…/picture` is split by seed, each class in its share. `folder/train/CLASS/…` and `folder/test/CLASS/…`
    (or `val`, `valid`, `validation` where there is no `test`) are taken as they are. Hidden files, and files that lie
    beside the class folders, are passed over; of pictures among the latter, and of links that are not followed, the
    data's `notes` tell. Nothing is written.

    Raises:
        ValueError: If there are no class folders, one only, an empty one, files that are no pictures, or more pictures
            than memory may hold.
    """
    request.check_kind("pictures")
    request.refuse("target", "features", "drop", because="The folders are the classes.")
    if request.task == "regression":
        raise bad_data(request.owner, "a folder of pictures has classes, so its task is classification")
    train_folder, test_folder = _parts(folder)
    around = train_folder or folder
    pictures, labels = _labelled(around, request, may_be_empty=bool(request.classes))
    classes = request.classes or tuple(sorted(set(labels), key=natural_key))
    check_names(classes, owner=request.owner)
    if len(classes) < 2:
        only = around / labels[0]
        where = f" in {train_folder.name}/" if train_folder else ""
        hint = f" Or name the folder that holds the classes: {only}." if _classes(only) else ""
        raise bad_data(
            request.owner, f"there is only the class {shown(next(iter(classes)))}{where}, and telling classes apart "
            "needs two at least", f"Add a sub-folder of pictures for another class.{hint}",
        )  # fmt: skip
    y = encode_classes(np.array(labels, object), classes, owner=request.owner, what="sub-folder")
    test_pictures: list[Picture] = []
    y_test = y[:0]
    if test_folder is not None:
        test_pictures, test_labels = _labelled(test_folder, request, may_be_empty=True)
        what = f"sub-folder of {test_folder.name}/"
        y_test = encode_classes(np.array(test_labels, object), classes, owner=request.owner, what=what)
        if request.test_fraction == 1:
            pictures, y = [], y[:0]
    shape = choose_shape(read_headers(pictures + test_pictures, owner=request.owner), request.picture_shape)
    if test_folder is None:
        train, test = split_indices(y, classes, request)
        y, y_test = y[train], y[test]
        pictures, test_pictures = [pictures[row] for row in train], [pictures[row] for row in test]
    x = decode(pictures + test_pictures, shape, owner=request.owner)
    x_train, x_test = x[: len(pictures)], x[len(pictures) :]
    return Dataset(
        source_name(folder), "pictures", "classification", x_train, y, x_test, y_test, classes, (),
        own_test=test_folder is not None, notes=_notes(folder, around, test_folder),
    )  # fmt: skip


def picture_files(folder: Path) -> list[Picture]:
    """Returns the files under a folder at any depth, in natural order; hidden ones and litter are passed over."""
    pictures = [path for path in _entries(folder) if path.is_file()]
    return [Picture(str(path), path) for path in sorted(pictures, key=lambda path: natural_key(path.as_posix()))]


def _entries(folder: Path) -> Iterator[Path]:
    """Yields what lies under a folder and is no folder to be gone into: files, pipes, links to folders."""
    for parent, folders, files in os.walk(folder, onerror=_cannot_be_read):
        folders[:] = [name for name in folders if not _passed_over(name)]
        yield from (Path(parent, name) for name in files if not _passed_over(name))
        yield from (path for path in (Path(parent, name) for name in folders) if path.is_symlink())


def _cannot_be_read(error: OSError) -> None:
    raise error


def _parts(folder: Path) -> tuple[Path | None, Path | None]:
    """Returns the folders of training and test classes, or None twice where the folder itself holds the classes."""
    train = folder / "train"
    test = next((folder / name for name in TEST_FOLDERS if (folder / name).is_dir()), None)
    if test is None or not train.is_dir():
        return None, None
    # A class may be called "train": only a folder of folders is a part, or an empty one beside a folder of folders.
    parts = _classes(train) or (_classes(test) and not picture_files(train))
    return (train, test) if parts else (None, None)


def _notes(folder: Path, train: Path, test: Path | None) -> tuple[str, ...]:
    """Returns sentences about what may have been meant to count, and does not."""
    parts = (train,) if test is None else (train, test)
    beside = [path for parent in {folder, *parts} for path in parent.iterdir() if _is_picture_by_name(path)]
    others = [path for path in _classes(folder) if path not in parts] if test else []
    below = [path for part in parts for each in _classes(part) for path in _entries(each)]
    links = [path for part in parts for path in part.iterdir() if path.is_symlink() and not path.exists()]
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
    return tuple(notes)


def _is_picture_by_name(path: Path) -> bool:
    kind = mimetypes.guess_type(path.name)[0] or ""
    return kind.startswith("image/") and not _passed_over(path.name) and not path.is_dir()


def _classes(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not _passed_over(path.name)]


def _labelled(folder: Path, request: Request, *, may_be_empty: bool) -> tuple[list[Picture], list[str]]:
    """Returns the pictures under the class folders and, for each, the name of its class folder."""
    class_folders = sorted(_classes(folder), key=lambda path: natural_key(path.name))
    if not class_folders:
        files = picture_files(folder)
        holds = f"holds {len(files)} file{'s' if len(files) > 1 else ''} and no sub-folder" if files else "is empty"
        raise bad_data(request.owner, f"the folder {folder} {holds}", "Put the pictures into one sub-folder a class.")
    pictures: list[Picture] = []
    labels: list[str] = []
    for class_folder in class_folders:
        files = picture_files(class_folder)
        if not files and not may_be_empty:
            raise bad_data(
                request.owner, f"the class folder {class_folder} holds no pictures", "Put pictures there or remove it."
            )
        pictures += files
        labels += [composed(class_folder.name)] * len(files)
    if not pictures:
        raise bad_data(request.owner, f"there are no pictures under {folder}", "Put pictures into its sub-folders.")
    return pictures, labels


def _passed_over(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _LITTER
