"""Layers and operations of `keras.RematScope` called as if they were outside of one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from keras_residual.residual.shapes import sublayers
from keras_residual.xray.finding.structure import is_functional

_NAME = "_remat_mode"


@contextmanager
def without_recomputation(model: keras.Layer) -> Iterator[None]:
    """Within the scope, no call in a model is recomputed for the gradient, which takes memory instead of time.

    What is noted in a call that is recomputed would be noted twice, or be gone with the backend's inner function,
    and variables would be written to when the scope that keeps them is left.

    Args:
        model: The model.
    """
    layers: list[Any] = list(sublayers(model))
    operations = [operation for layer in layers if is_functional(layer) for operation in layer.operations]
    kept = {id(operation): operation for operation in (*layers, *operations)}
    modes = [(operation, mode) for operation in kept.values() if (mode := getattr(operation, _NAME, None)) is not None]
    for operation, _ in modes:
        operation.__dict__[_NAME] = None
    try:
        yield
    finally:
        for operation, mode in modes:
            operation.__dict__[_NAME] = mode
