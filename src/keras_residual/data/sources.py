"""What a source is, by its name: a built-in set, a Keras set, a folder or a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from keras_residual._errors import bad_data, did_you_mean, shown
from keras_residual._places import expanded
from keras_residual.data.builtin import BUILTIN_NAMES, load_builtin
from keras_residual.data.columns import TABLE_SUFFIXES, open_table
from keras_residual.data.dataset import Dataset, targets_that_do_not_vary
from keras_residual.data.files import reading
from keras_residual.data.fingerprint import apart
from keras_residual.data.folders import TEST_FOLDERS, load_folder
from keras_residual.data.keras_sets import KERAS_NAMES, load_keras_set
from keras_residual.data.labels import spelled_in_two_ways
from keras_residual.data.npz import load_npz
from keras_residual.data.picture_parquet import picture_column, picture_dataset
from keras_residual.data.request import Request
from keras_residual.data.tables import table_dataset


def load_dataset(
    source: str,
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
) -> Dataset:
    """Returns training and test data from a name or a path. Nothing is written.

    Where the source has a test part of its own, what is a training example too is left out of it, with a note. Files
    are opened in the formats that are named here, whatever else Pillow knows, and refused before they unpack to far
    more than they are.

    Args:
        source: A set inside scikit-learn (`BUILTIN_NAMES`), a set of Keras (`KERAS_NAMES`, downloaded once), a folder
            with one sub-folder of pictures a class (or `train/` and `test/` of those), a folder with `train.parquet`
            and `test.parquet` (or `.csv`), a `.parquet` of pictures in the Hugging Face layout, a table (`.csv`,
            `.parquet`) or a `.npz`. A name of a set wins over a file; write `./digits` for the folder. Pictures are
            JPEG, PNG, WebP, BMP, GIF or TIFF; of an animation the first frame counts.
        target: Column to predict; a table needs it.
        task: `"auto"`: text, booleans and whole numbers with 20 distinct values at most are classes.
        image_size: Height and width of the pictures in pixels. None: their own where they share one of at most 96,
            else 64; arrays keep theirs.
        image_shape: Height, width and channels exactly, over `image_size`; what a trained model needs.
        test_fraction: Share of the test examples in `(0, 1]` where the source has no split of its own. With 1 there are
            no training examples, and the test examples are all there are, or the source's own test part.
        seed: Decides that split, whole number in `[0, 2**32)`.
        classes: Class names in index order, where a trained model fixes them. None: those of the data.
        features: Columns in their order, where a trained model fixes them. None: all but target and `drop`.
        drop: Columns to leave out.

    Raises:
        ValueError: If there is no such source, or its content cannot be used; says what and where.
        ConnectionError: If a set of Keras cannot be downloaded.
        ImportError: If a package of the extra `train` is missing.

    Example:
        >>> load_dataset("digits").x_train.shape
        (1437, 8, 8, 1)
    """
    request = Request(
        source=source,
        target=target,
        task=task,
        image_size=image_size,
        image_shape=image_shape,
        test_fraction=test_fraction,
        seed=seed,
        classes=classes or (),
        features=features or (),
        drop=drop,
    )
    with reading(request.owner, less="Take fewer examples."):
        dataset = _load(request)
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
    if suffix in TABLE_SUFFIXES:
        return _load_tables(path, path, None, request)
    raise bad_data(
        request.owner, "a data file ends in .csv, .parquet or .npz",
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
        return path.suffix.lower() in TABLE_SUFFIXES if not path.is_dir() else _training_table(path) is not None


def _training_table(folder: Path) -> Path | None:
    tables = (folder / f"train{suffix}" for suffix in TABLE_SUFFIXES)
    return next((table for table in tables if table.is_file()), None)


def _load_directory(folder: Path, request: Request) -> Dataset:
    train = _training_table(folder)
    if train is None:
        return load_folder(folder, request)
    tests = (train.with_stem(name) for name in TEST_FOLDERS)
    return _load_tables(folder, train, next((table for table in tests if table.is_file()), None), request)


def _load_tables(path: Path, train_path: Path, test_path: Path | None, request: Request) -> Dataset:
    train = open_table(train_path, owner=request.owner)
    test = None if test_path is None else open_table(test_path, owner=f"{request.owner} (test)")
    load = table_dataset if picture_column(train) is None else picture_dataset
    return load(path, train, test, request)
