"""What a source is, by its name: a built-in set, a Keras set, a folder or a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from keras_residual._errors import bad_data, did_you_mean, shown
from keras_residual._places import expanded
from keras_residual.data.builtin import BUILTIN_NAMES, load_builtin
from keras_residual.data.columns import TABLE_SUFFIXES, open_table
from keras_residual.data.dataset import Dataset, targets_that_do_not_vary
from keras_residual.data.files import reading
from keras_residual.data.fingerprint import apart
from keras_residual.data.folders import load_folder, part_of
from keras_residual.data.keras_sets import KERAS_NAMES, load_keras_set
from keras_residual.data.labels import spelled_in_two_ways
from keras_residual.data.lazy import MEMORY_BUDGET
from keras_residual.data.npz import load_npz
from keras_residual.data.objects import name_of, object_dataset
from keras_residual.data.picture_names import named_picture_dataset, named_pictures
from keras_residual.data.picture_parquet import picture_column, picture_dataset
from keras_residual.data.request import MOST_BROKEN, Request
from keras_residual.data.tables import table_dataset
from keras_residual.data.tars import load_tars, tar_files


def load_dataset(
    source: Any,
    *,
    target: str | None = None,
    task: Literal["auto", "classification", "regression"] = "auto",
    image_size: int | None = None,
    image_shape: tuple[int, int, int] | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    classes: tuple[str, ...] | None = None,
    features: tuple[str, ...] | None = None,
    drop: tuple[str, ...] = (),
    usual_size: tuple[int, int, str] | None = None,
    memory: int = MEMORY_BUDGET,
    most_broken: int = MOST_BROKEN,
) -> Dataset:
    """Returns training and test data from a name or a path. Nothing is written.

    Where the source has a test part of its own, what is a training example too is left out of it, with a note. Files
    are opened in the formats that are named here, whatever else Pillow knows, and refused before they unpack to far
    more than they are.

    Args:
        source: An object of the caller's (arrays, or whatever has `len()` and examples by `[index]`), or the name of a
            set inside scikit-learn (`BUILTIN_NAMES`), of a set of Keras (`KERAS_NAMES`, downloaded once), or a path: a
            folder with one sub-folder of pictures a class (or `train/`, `val/` and `test/` of those), a folder with
            `train.parquet` and `test.parquet` (or `.csv`), a `.parquet` of pictures in the Hugging Face layout, a
            `.csv` with the file names of pictures, `.tar` files of WebDataset, a table (`.csv`, `.parquet`) or a
            `.npz`. A name of a set wins over a file; write `./digits` for the folder. Pictures are JPEG, PNG, WebP,
            BMP, GIF or TIFF; of an animation the first frame counts.
        target: Column to predict; a table needs it.
        task: `"auto"`: text, booleans and whole numbers with 20 distinct values at most are classes.
        image_size: Height and width of the pictures in pixels. None: their own where they share one of at most 96,
            else `usual_size`, else 64; arrays keep theirs.
        image_shape: Height, width and channels exactly, over `image_size`; what a trained model needs.
        test_fraction: Share of the test examples in `(0, 1]` where the source has no split of its own. With 1 there are
            no training examples, and the test examples are all there are, or the source's own test part.
        seed: Decides that split, whole number in `[0, 2**32)`.
        classes: Class names in index order, where a trained model fixes them. None: those of the data.
        features: Columns in their order, where a trained model fixes them. None: all but target and `drop`.
        drop: Columns to leave out.
        usual_size: Height and width of pictures where nobody asks and they share no small one, and why.
        memory: Bytes up to which the inputs stay in memory; of more, rows are read from the disk as they are needed.
        most_broken: Pictures that cannot be read and are left out; more of them are refused.

    Raises:
        ValueError: If there is no such source, or its content cannot be used; says what and where.
        ConnectionError: If a set of Keras cannot be downloaded.
        ImportError: If a package of the extra `train` is missing.

    Example:
        >>> load_dataset("digits").x_train.shape
        (1437, 8, 8, 1)
    """
    request = Request(
        source=source if isinstance(source, str) else name_of(source),
        target=target,
        task=task,
        image_size=image_size,
        image_shape=image_shape,
        test_fraction=test_fraction,
        seed=seed,
        classes=classes or (),
        features=features or (),
        drop=drop,
        usual_size=usual_size,
        memory=memory,
        most_broken=most_broken,
    )
    with reading(request.owner, less="Take fewer examples."):
        dataset = _load(request) if isinstance(source, str) else object_dataset(source, request)
    if not request.classes:
        dataset = replace(dataset, notes=(*dataset.notes, *spelled_in_two_ways(dataset.classes)))
    if test_fraction == 1:
        return dataset
    dataset.check_there_are("train")
    dataset = apart(dataset)
    return replace(dataset, notes=(*dataset.notes, *targets_that_do_not_vary(dataset)))


def _load(request: Request) -> Dataset:
    source = request.source
    if source in BUILTIN_NAMES:
        return load_builtin(request)
    if source in KERAS_NAMES:
        return load_keras_set(request)
    path = expanded(source)
    if path.is_dir():
        return _load_directory(path, request)
    if not path.exists():
        raise bad_data(
            request.owner, "there is no such file or folder, and no set has this name",
            did_you_mean(source, (*BUILTIN_NAMES, *KERAS_NAMES)).strip(),
        )  # fmt: skip
    return _load_file(path, request)


def _load_file(path: Path, request: Request) -> Dataset:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return load_npz(path, request)
    if suffix == ".tar":
        return load_tars(path, [path], request)
    if suffix in TABLE_SUFFIXES:
        return _load_tables(path, path, {}, request)
    raise bad_data(
        request.owner, "a data file ends in .csv, .parquet, .npz or .tar",
        "Pictures come as a folder with one sub-folder a class.",
    )  # fmt: skip


def takes_target(source: str) -> bool:
    """Returns whether a source is told which of its columns to predict: whether it is a table, of pictures perhaps.

    Args:
        source: As in `load_dataset`.
    """
    if source in (*BUILTIN_NAMES, *KERAS_NAMES):
        return False
    path = expanded(source)
    with reading(f"Data {shown(source)}", less=""):
        if path.is_dir():
            return bool(_part_tables(path) or tar_files(path))
        return path.suffix.lower() in (*TABLE_SUFFIXES, ".tar")


def _part_tables(folder: Path) -> dict[str, Path]:
    """Returns the tables of a folder that are called as parts, all of the kind of that for training."""
    for suffix in TABLE_SUFFIXES:
        tables = sorted(path for path in folder.glob("*") if path.suffix.lower() == suffix and path.is_file())
        parts = {part: path for path in reversed(tables) if (part := part_of(path.stem))}
        if "train" in parts:
            return parts
    return {}


def _load_directory(folder: Path, request: Request) -> Dataset:
    tables = _part_tables(folder)
    if not tables:
        shards = tar_files(folder)
        return load_tars(folder, shards, request) if shards else load_folder(folder, request)
    return _load_tables(folder, tables.pop("train"), tables, request)


def _load_tables(path: Path, train_path: Path, others: Mapping[str, Path], request: Request) -> Dataset:
    train = open_table(train_path, owner=request.owner)
    rest = {part: open_table(path, owner=f"{request.owner} ({part})") for part, path in others.items()}
    if picture_column(train) is not None:
        return picture_dataset(path, train, rest, request)
    load = table_dataset if named_pictures(train) is None else named_picture_dataset
    return load(path, train, rest, request)
