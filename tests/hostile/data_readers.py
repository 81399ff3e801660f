"""What is attacked: the readers of data, each as a function of a path that returns a digest of what it has read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np

# What a command loads anyway, so that it does not count as memory of the reader.
import PIL.BmpImagePlugin
import PIL.GifImagePlugin
import PIL.JpegImagePlugin
import PIL.PngImagePlugin
import PIL.TiffImagePlugin
import PIL.WebPImagePlugin
import pyarrow.csv
import pyarrow.parquet
import sklearn.model_selection

from keras_residual.data import load_dataset, load_inputs

_LOADED = (PIL, pyarrow, sklearn)


def labelled(path: str) -> dict[str, Any]:
    """Reads a set of any kind; of a table `y` is the target."""
    table = Path(path).suffix in (".csv", ".parquet") and "picture" not in Path(path).name
    data = load_dataset(path, target="y" if table else None, test_fraction=0.5)
    arrays = (data.x_train, data.y_train, data.x_test, data.y_test)
    return {
        "arrays": [_digest(array) for array in arrays],
        "classes": data.classes[:100],
        "features": len(data.features),
    }


def picture(path: str) -> dict[str, Any]:
    """Reads one picture, or a folder or file of several, as `predict` does."""
    x, names = load_inputs([path], kind="pictures", image_shape=(16, 16, 3))
    return {"x": _digest(x), "names": [Path(name).name for name in names][:5]}


def rows(path: str) -> dict[str, Any]:
    """Reads the rows of a table without labels, as `predict` does."""
    features = ("x0", "x1") if path.endswith(".npz") else ("a", "b")
    x, names = load_inputs([path], kind="table", features=features)
    return {"x": _digest(x), "count": len(names)}


def _digest(array: np.ndarray) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(array)).hexdigest()[:16]
    return f"{array.dtype} {array.shape} {digest}"
