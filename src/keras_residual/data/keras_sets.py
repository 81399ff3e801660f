"""The sets that Keras downloads once and keeps under `~/.keras`."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Any

import keras
import numpy as np

from keras_residual._errors import bad_data, printable
from keras_residual.data.dataset import Dataset
from keras_residual.data.features import pick_features
from keras_residual.data.labels import encode_classes
from keras_residual.data.pictures import conform
from keras_residual.data.request import Request

_CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""
# Class names in index order, as the authors of the sets list them.
PICTURE_SETS = {
    "mnist": tuple("0123456789"),
    "fashion_mnist": (
        "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle_boot",
    ),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "cifar100": tuple(_CIFAR100.split()),
}  # fmt: skip
# Columns in their order. Boston housing is left out: scikit-learn withdrew it for its column about race.
TABLE_SETS = {
    "california_housing": (
        "longitude", "latitude", "housing_median_age", "total_rooms", "total_bedrooms", "population", "households",
        "median_income",
    )
}  # fmt: skip
KERAS_NAMES = (*PICTURE_SETS, *TABLE_SETS)


def load_keras_set(request: Request) -> Dataset:
    """Returns one of `KERAS_NAMES` with its own split; `california_housing` is split by the request's seed.

    Raises:
        ConnectionError: If the set is not there yet and cannot be downloaded.
        ValueError: If the request does not fit the set.
    """
    request.check_kind("table" if request.source in TABLE_SETS else "pictures")
    request.refuse("target", because="This set has a target of its own.")
    name = request.source
    if name in TABLE_SETS:
        return _table(name, request)
    request.refuse("features", "drop", because="Pictures have no columns.")
    if request.task == "regression":
        raise bad_data(request.owner, "the set has classes, so its task is classification")
    (x_train, y_train), (x_test, y_test) = _download(name)
    if request.test_fraction == 1:
        x_train, y_train = x_train[:0], y_train[:0]
    names, classes = np.array(PICTURE_SETS[name], object), request.classes or PICTURE_SETS[name]

    def labels(y: np.ndarray) -> np.ndarray:
        return encode_classes(names[y.reshape(-1)], classes, owner=request.owner, what="class")

    def pictures(x: np.ndarray) -> np.ndarray:
        x = x if x.ndim == 4 else x[..., None]
        return conform(x, request.picture_shape, packed=x.nbytes, owner=request.owner)

    return Dataset(
        name, "pictures", "classification",
        pictures(x_train), labels(y_train), pictures(x_test), labels(y_test), classes, (), own_test=True,
    )  # fmt: skip


def _table(name: str, request: Request) -> Dataset:
    request.refuse("image_size", "image_shape", because="The data is a table.")
    request.refuse("classes", because="The task is regression.")
    if request.task == "classification":
        raise bad_data(request.owner, "the target of this set is a number, so its task is regression")
    columns = TABLE_SETS[name]
    features = pick_features(columns, request, target=None)
    picked = [columns.index(feature) for feature in features]
    (x_train, y_train), (x_test, y_test) = _download(name, test_split=request.test_fraction, seed=request.seed)
    x_train, x_test = (x[:, picked].astype(np.float64) for x in (x_train, x_test))
    y_train, y_test = (y.astype(np.float64) for y in (y_train, y_test))
    return Dataset(name, "table", "regression", x_train, y_train, x_test, y_test, (), features)


def _download(name: str, **arguments: Any) -> Any:
    try:
        # Keras reports the download on standard output, which may be kept for --json. Standard error may be closed.
        with contextlib.redirect_stdout(sys.stderr or io.StringIO()):
            return getattr(keras.datasets, name).load_data(**arguments)
    # keras.utils.get_file raises bare Exceptions.
    except Exception as error:
        raise ConnectionError(
            f"Data {name!r}: the set is not on this machine and could not be downloaded ({printable(error)}). "
            f"Check the network; the sets digits, breast_cancer, wine and diabetes need none."
        ) from None
