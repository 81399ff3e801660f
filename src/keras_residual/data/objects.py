"""Data that are an object of the caller's: arrays, or what gives an example for a place and knows its length."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_residual._errors import bad_data, shown
from keras_residual.data.columns import finite_numbers
from keras_residual.data.dataset import Dataset
from keras_residual.data.features import pick_features
from keras_residual.data.files import in_words
from keras_residual.data.folders import part_of
from keras_residual.data.labels import choose_task, class_names, encode_classes, encode_numbers
from keras_residual.data.lazy import Inputs, LazyExamples, digests_of, in_threads, joined, subset
from keras_residual.data.npz import as_pictures
from keras_residual.data.pictures import Header, choose_shape
from keras_residual.data.pixels import fit, in_channels
from keras_residual.data.request import Request
from keras_residual.data.split import split_indices

_AT_A_TIME = 256
_INPUTS, _LABELS = ("image", "img", "picture", "x", "input", "inputs"), ("label", "labels", "y", "target")
_WAY_OUT = (
    "Pass (x, y), a dictionary of parts such as {'train': …, 'test': …}, or an object with len() and [index] whose "
    "examples are (x, y) or dictionaries: a torch Dataset, a Grain source, a Dataset of `datasets`."
)


def name_of(source: Any) -> str:
    """Returns what data that are an object are called, where a file or a set has a name."""
    return "arrays" if isinstance(source, (tuple, list, Mapping)) else type(source).__name__


def object_dataset(source: Any, request: Request) -> Dataset:
    """Returns the data of an object.

    An example is a pair `(x, y)`, or a dictionary with one of `image`, `img`, `x` and one of `label`, `y`, or the
    request's target. `x` is a picture (an array of whole numbers 0..255 or floats 0..1, a tensor, of Pillow), or a row
    of numbers. Parts come as a dictionary by the names that folders may have, or as the pairs for training and test.

    Raises:
        ValueError: If there is no random access, or an example is something else.
    """
    if isinstance(source, Dataset):
        return source
    parts = {"train": source}
    if _is_pair(source) and all(map(_is_pair, source)):
        parts = dict(zip(("train", "test"), source, strict=True))
    if isinstance(source, Mapping) and source and all(part_of(str(key)) for key in source):
        parts = {str(part_of(str(key))): value for key, value in source.items()}
    if "train" not in parts:
        raise bad_data(request.owner, f"there is no part 'train' among {', '.join(map(shown, source))}", _WAY_OUT)
    read = {part: _Part(value, request) for part, value in parts.items()}
    first = read["train"]
    task = choose_task(first.answers, request.task)
    classes = ()
    if task == "classification":
        classes = request.classes or first.names or class_names(first.answers, owner=request.owner)
    everything = request.test_fraction == 1
    shape, why = first.shape()
    x = {
        part: each.inputs(shape)
        for part, each in read.items()
        if not (everything and "test" in read and part == "train")
    }
    y = {part: each.encoded(classes, first.names) for part, each in read.items() if part in x}
    choose = None
    if "validation" in x and "train" in x:
        choose = np.arange(len(y["train"]), len(y["train"]) + len(y["validation"]))
        x["train"] = joined(x["train"], x.pop("validation"))
        y["train"] = np.concatenate([y["train"], y.pop("validation")])
    if "test" in x:
        x_test, y_test = x["test"], y["test"]
        x_train, y_train = (x["train"], y["train"]) if "train" in x else (subset(x_test, slice(0, 0)), y_test[:0])
    else:
        drawn = np.arange(len(y["train"])) if choose is None or everything else np.arange(choose[0])
        rows, test = split_indices(y["train"][drawn], classes, request)
        rows, test = drawn[rows], drawn[test]
        if choose is not None and not everything:
            rows, choose = np.concatenate([rows, choose]), np.arange(len(rows), len(rows) + len(choose))
        x_train, y_train = subset(x["train"], rows), y["train"][rows]
        x_test, y_test = subset(x["train"], test), y["train"][test]
    lazy = isinstance(x_train, LazyExamples)
    size = in_words(sum(len(each) for each in y.values()) * math.prod(shape) * (1 if len(shape) == 3 else 8))
    where = f"Asked of the object as they are needed, since {size} would not fit into data.memory." if lazy else (
        f"Held in memory: {size}."
    )  # fmt: skip
    pictures = len(shape) == 3
    features = () if pictures else tuple(f"x{column}" for column in range(shape[0]))
    if not pictures and features != pick_features(features, request, target=None):
        raise bad_data(request.owner, "columns of an object cannot be left out here", "Leave them out of the object.")
    return Dataset(
        Path(request.source).name, "pictures" if pictures else "table", task, x_train, y_train, x_test, y_test, classes,
        features, own_test="test" in read, choose=None if everything else choose,
        found=(f"Found {sum(len(each) for each in y.values())} examples of shape {shape}.", *why, where),
    )  # fmt: skip


class _Part:
    """A part of the data: how many examples, their answers, and how to read their inputs by their places."""

    def __init__(self, source: Any, request: Request) -> None:
        self._request, self.names = request, ()
        arrays = source if _is_pair(source) else None
        if isinstance(source, Mapping) and {"x", "y"} <= set(source):
            arrays = (source["x"], source["y"])
        if arrays is not None and all(hasattr(each, "shape") or isinstance(each, list) for each in arrays):
            self._x, self.answers = np.asarray(arrays[0]), np.asarray(arrays[1]).reshape(-1)
            if len(self._x) != len(self.answers):
                raise bad_data(request.owner, f"x has {len(self._x)} examples and y has {len(self.answers)}")
            self._item, self._length = (lambda place: self._x[place]), len(self._x)
            self._array = self._x.dtype == np.uint8 and self._x.ndim == 4
        else:
            if not hasattr(source, "__getitem__"):
                raise bad_data(
                    request.owner, f"a {type(source).__name__} gives no example for a place, so that no batch could be "
                    "found again when a run goes on", f"Make arrays of it, or write it to a file. {_WAY_OUT}",
                )  # fmt: skip
            self._source, self._length, self._array = source, len(source), False
            self._check_not_empty()
            self._item = lambda place: self._pair(int(place))[0]
            self.names = _names(source, request)
            self.answers = self._answers()
        self._check_not_empty()

    def _check_not_empty(self) -> None:
        if not self._length:
            raise bad_data(self._request.owner, "there are no examples")

    def encoded(self, classes: tuple[str, ...], names: tuple[str, ...]) -> np.ndarray:
        """Returns the answers as a `Dataset` holds them."""
        owner, values = self._request.owner, self.answers
        if not classes:
            return encode_numbers(values, owner=owner, what="y")
        if names and values.dtype.kind in "iu":
            if not 0 <= values.min() <= values.max() < len(names):
                raise bad_data(owner, f"labels run from {values.min()} to {values.max()}, and {len(names)} have names")
            values = np.array(names, object)[values]
        return encode_classes(values, classes, owner=owner)

    def shape(self) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Returns the shape that the inputs get, by the first example, and why."""
        first = self._array_of(self._item(0))
        if first.ndim == 1:
            self._request.check_kind("table")
            return first.shape, ()
        self._request.check_kind("pictures")
        header = Header(first.shape[0], first.shape[1], first.shape[2] == 1)
        shape, why = choose_shape([header], self._request.picture_shape, self._request.usual_size)
        return shape, (why,)

    def inputs(self, shape: tuple[int, ...]) -> Inputs:
        """Returns all inputs in one shape, in memory or as they are asked for."""
        if self._array and self._x.shape[1:] == shape:
            return self._x
        dtype = np.dtype(np.uint8 if len(shape) == 3 else np.float64)

        def read(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            result = np.empty((len(places), *shape), dtype)

            def fill(row: int) -> None:
                result[row] = self._fitted(self._item(places[row]), shape)

            in_threads(fill, range(len(places)))
            return result, np.ones(len(places), bool)

        places = np.arange(self._length)
        pieces = [places[start : start + _AT_A_TIME] for start in range(0, self._length, _AT_A_TIME)]
        if self._length * math.prod(shape) * dtype.itemsize <= self._request.memory:
            return np.concatenate([read(piece)[0] for piece in pieces])
        digests = np.concatenate([digests_of(read(piece)[0]) for piece in pieces])
        return LazyExamples(read, shape, dtype, places, digests)

    def _fitted(self, value: Any, shape: tuple[int, ...]) -> np.ndarray:
        array, owner = self._array_of(value), self._request.owner
        if len(shape) == 1:
            if array.shape != shape:
                raise bad_data(owner, f"an example has shape {array.shape}, and the first one has {shape}")
            return finite_numbers(array[None], owner=owner, what="x")[0]
        if array.ndim != 3:
            raise bad_data(owner, f"an example has shape {array.shape}, and the first one is a picture")
        pixels = as_pictures(array[None], "x", owner=owner)[0]
        return fit(in_channels(pixels, shape[2]), (shape[0], shape[1]))

    def _array_of(self, value: Any) -> np.ndarray:
        """Returns a picture with its channels last, or a row."""
        if hasattr(value, "convert") and hasattr(value, "getbands"):  # Pillow's
            value = np.asarray(value.convert("L" if value.mode in ("1", "L", "LA") else "RGB"))
        array = np.asarray(value)
        if array.ndim == 2:
            array = array[..., None]
        if array.ndim == 3 and array.shape[-1] not in (1, 3) and array.shape[0] in (1, 3):
            array = np.moveaxis(array, 0, -1)  # as torch has it
        if array.ndim not in (1, 3) or array.dtype.kind not in "biuf":
            raise bad_data(
                self._request.owner, f"an example is {array.dtype} of shape {array.shape}, neither a picture nor a row "
                "of numbers", _WAY_OUT,
            )  # fmt: skip
        return array

    def _pair(self, place: int) -> tuple[Any, Any]:
        item = self._source[place]
        if isinstance(item, Mapping):
            labels = (self._request.target,) if self._request.target else _LABELS
            x = next((item[key] for key in _INPUTS if key in item), None)
            y = next((item[key] for key in labels if key in item), None)
            if x is not None and y is not None:
                return x, y
        elif isinstance(item, (tuple, list)) and len(item) == 2:
            return item[0], item[1]
        raise bad_data(self._request.owner, f"example {place} is {shown(item)}", _WAY_OUT)

    def _answers(self) -> np.ndarray:
        source: Any = self._source
        columns = getattr(source, "column_names", None)
        if isinstance(columns, list):  # of `datasets`, whose pictures need not be decoded for that
            label = next((name for name in (self._request.target, *_LABELS) if name in columns), None)
            if label is not None:
                return np.asarray(source[label])
        values = [np.asarray(self._pair(place)[1]).reshape(-1) for place in range(self._length)]
        if any(len(value) != 1 for value in values):
            raise bad_data(self._request.owner, "the answer of an example must be one label or number", _WAY_OUT)
        return np.concatenate(values)


def _is_pair(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2


def _names(source: Any, request: Request) -> tuple[str, ...]:
    """Returns the names of classes of a `Dataset` of `datasets`, or those that torchvision's sets have."""
    features = getattr(source, "features", None)
    if isinstance(features, Mapping):
        label = next((name for name in (request.target, *_LABELS) if name in features), None)
        names = getattr(features.get(label), "names", None) if label else None
    else:
        names = getattr(source, "classes", None)
    return tuple(map(str, names)) if isinstance(names, (list, tuple)) else ()
