"""What a callback has come to know in a training, for one that goes on: the attributes that have changed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_residual.training.checkpoint import pack


def frozen(callback: keras.callbacks.Callback) -> dict[str, tuple[Any, Any]]:
    """Returns of each attribute of a callback the value, and its content where that is plain."""
    found: dict[str, tuple[Any, Any]] = {}
    for name, value in vars(callback).items():
        arrays: list[np.ndarray] = []
        try:
            packed = pack(value, arrays)
            found[name] = (value, (packed, [(array.shape, array.tobytes()) for array in arrays]))
        except TypeError:
            found[name] = (value, None)
    return found


def changed(callback: keras.callbacks.Callback, before: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Returns the attributes that are others than they were; none if there is one that cannot be written."""
    attributes: dict[str, Any] = {}
    for name, (value, content) in frozen(callback).items():
        value_before, content_before = before.get(name, (None, None))
        if content is None and value is not value_before:
            return {}
        if content is not None and content != content_before:
            attributes[name] = copy.deepcopy(value)
    return attributes
