"""Convolutions, norms and the like of maps `(batch, height, width, channels)` in NumPy, with float64."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from contract import to_numpy


def random_weights(layer: keras.Layer, seed: int = 4) -> dict[str, np.ndarray]:
    """Gives a layer random weights and returns them by their paths, less the layer's own name.

    Kernels keep the size of what they are given; the statistics and factors of norms lie between 0.5 and 1.5.
    """
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        shape = tuple(weight.shape)
        if weight.name == "kernel":
            value = rng.normal(size=shape) * (2 / np.prod(shape[:-1])) ** 0.5
        elif weight.name == "bias":
            value = rng.normal(size=shape)
        else:
            value = rng.uniform(0.5, 1.5, size=shape)
        weight.assign(value.astype("float32"))
    return {weight.path.split("/", 1)[1]: to_numpy(weight.value).astype("float64") for weight in layer.weights}


def conv(
    x: np.ndarray, w: dict[str, np.ndarray], name: str, *, strides: int = 1, dilation: int = 1, groups: int = 1
) -> np.ndarray:
    """Returns a convolution with `dilation * (width // 2)` zeros on each side, and its bias where it has one."""
    kernel = w[f"{name}/kernel"]
    margin = dilation * (len(kernel) // 2)
    x = np.pad(x.astype("float64"), [(0, 0), (margin, margin), (margin, margin), (0, 0)])
    rows, columns = (range(0, size - 2 * margin, strides) for size in x.shape[1:3])
    y = np.zeros((len(x), len(rows), len(columns), kernel.shape[-1]))
    for group, filters in enumerate(np.split(np.arange(kernel.shape[-1]), groups)):
        inputs = np.split(x, groups, axis=-1)[group]
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                reach = dilation * (len(kernel) - 1) + 1
                window = inputs[:, row : row + reach : dilation, column : column + reach : dilation]
                y[:, i, j, filters] = np.einsum("bhwi,hwio->bo", window, kernel[..., filters])
    return y + w.get(f"{name}/bias", 0.0)


def norm(x: np.ndarray, w: dict[str, np.ndarray], name: str, *, epsilon: float = 1e-5, training: bool = False) -> Any:
    """Returns a batch norm by the moving statistics or, in training, by the batch's own."""
    mean, variance = w[f"{name}/moving_mean"], w[f"{name}/moving_variance"]
    if training:
        mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    return (x - mean) / np.sqrt(variance + epsilon) * w[f"{name}/gamma"] + w[f"{name}/beta"]


def relu(x: np.ndarray) -> np.ndarray:
    """Returns the positive part."""
    return np.maximum(x, 0)


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    """Returns shares that sum to 1 along an axis."""
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def assert_channels_first_agrees(last: keras.Layer, first: keras.Layer, x: np.ndarray, tolerance: float = 1e-5) -> None:
    """Raises where a layer with channels first makes something else of `x`, whose channels are last, than one without.

    The layers are those of one class, not built, with equal arguments but for the data format.
    """
    last.build(x.shape)
    moved = np.moveaxis(x, -1, 1)
    first.build(moved.shape)
    random_weights(last)
    first.set_weights(last.get_weights())
    expected, actual = to_numpy(last(x)), np.moveaxis(to_numpy(first(moved)), 1, -1)
    assert tuple(first.compute_output_shape((None, *moved.shape[1:]))) == (
        None,
        *np.moveaxis(expected, -1, 1).shape[1:],
    )
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())
