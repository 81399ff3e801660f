"""The sets that ship inside scikit-learn, so that they work without a network."""

from __future__ import annotations

import numpy as np

from keras_residual import _optional
from keras_residual._errors import bad_data
from keras_residual.data.dataset import Dataset
from keras_residual.data.features import pick_features
from keras_residual.data.labels import encode_classes
from keras_residual.data.pictures import conform
from keras_residual.data.request import Request
from keras_residual.data.split import split_indices

BUILTIN_NAMES = ("digits", "breast_cancer", "wine", "diabetes")


def load_builtin(request: Request) -> Dataset:
    """Returns one of `BUILTIN_NAMES`, split by the request's seed.

    `digits`: 1,797 pictures of 8×8×1, whose 0..16 become 0..255. `breast_cancer` (569 rows, 30 features, 2 classes)
    and `wine` (178, 13, 3) are tables for classes, `diabetes` (442, 10) is one for a number.
    """
    request.check_kind("pictures" if request.source == "digits" else "table")
    request.refuse("target", because="This set has a target of its own.")
    datasets = _optional.require("sklearn.datasets", extra="train")
    bunch = getattr(datasets, f"load_{request.source}")()
    if request.source == "diabetes":
        return _regression(bunch, request)
    names = tuple(str(name) for name in bunch.target_names)
    if request.task == "regression":
        raise bad_data(request.owner, f"the set has classes ({', '.join(names)}), so its task is classification")
    classes = request.classes or names
    y = encode_classes(np.array(names, object)[bunch.target], classes, owner=request.owner, what="class")
    if request.source == "digits":
        request.refuse("drop", "features", because="Pictures have no columns.")
        pictures = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
        x = conform(pictures, request.picture_shape, packed=pictures.nbytes, owner=request.owner)
        features, kind = (), "pictures"
    else:
        x, features = _columns(bunch, request)
        kind = "table"
    train, test = split_indices(y, classes, request)
    return Dataset(request.source, kind, "classification", x[train], y[train], x[test], y[test], classes, features)


def _regression(bunch: dict[str, np.ndarray], request: Request) -> Dataset:
    if request.task == "classification":
        raise bad_data(request.owner, "the target of this set is a number, so its task is regression")
    request.refuse("classes", because="The task is regression.")
    x, features = _columns(bunch, request)
    y = bunch["target"].astype(np.float64)
    train, test = split_indices(y, (), request)
    return Dataset(request.source, "table", "regression", x[train], y[train], x[test], y[test], (), features)


def _columns(bunch: dict[str, np.ndarray], request: Request) -> tuple[np.ndarray, tuple[str, ...]]:
    request.refuse("image_size", "image_shape", because="The data is a table.")
    names = tuple(str(name) for name in bunch["feature_names"])
    features = pick_features(names, request, target=None)
    return bunch["data"][:, [names.index(name) for name in features]].astype(np.float64), features
