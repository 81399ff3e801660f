"""How the arrays of PyTorch's layers lie, and how ours do."""

from __future__ import annotations

import numpy as np

from keras_residual.weights.name_maps import POINTWISE
from keras_residual.weights.slots import Slot


def to_ours(slot: Slot, array: np.ndarray) -> np.ndarray:
    """Returns an array as our layer has it: kernels `(*window, inputs, filters)` of `(filters, inputs, *window)`.

    A convolution of one position becomes the matrix of a dense layer where we have one.
    """
    if not slot.path.endswith("/kernel") or array.ndim < 2:
        return array
    kernel = array.transpose(*range(2, array.ndim), 1, 0)
    window = kernel.shape[:-2]
    if len(slot.shape) == 2 and set(window) == {1}:
        kernel = kernel.reshape(kernel.shape[-2:])
    return kernel


def to_theirs(slot: Slot, name: str) -> np.ndarray:
    """Returns our weight as PyTorch's layer of that name has it."""
    array = slot.read()
    if not slot.path.endswith("/kernel"):
        return array
    kernel = array.transpose(-1, -2, *range(array.ndim - 2))
    layer = name.removesuffix(".weight")
    if kernel.ndim == 2 and any(layer == end or layer.endswith(f".{end}") for end in POINTWISE):
        kernel = kernel[:, :, None, None]
    return np.ascontiguousarray(kernel)
