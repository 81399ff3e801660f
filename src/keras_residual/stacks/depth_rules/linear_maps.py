"""The linear maps of a branch in order, which rules for initial weights act on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras

from keras_residual.layers.value_attention import ValueResidualAttention
from keras_residual.layers.weight_standardization import ScaledWeightStandardization
from keras_residual.residual.shapes import ATTENTION


@dataclass(frozen=True, slots=True)
class LinearMap:
    """One linear map of a branch.

    Args:
        role: `"linear"`, or in an attention layer `"query"`, `"key"`, `"value"` or `"output"`.
        kernel: The variable that scales the map: its matrix, or the gain of a standardised matrix.
    """

    role: str
    kernel: keras.Variable


def linear_maps(layers: Iterable[keras.Layer]) -> list[LinearMap]:
    """Returns the linear maps of built layers, in the order in which they act, without biases.

    Nested layers are included, in the order in which the outer layer created them. A custom attention layer counts as
    the linear maps in it, since nothing distinguishes its queries and keys from its values.
    """
    return [found for layer in layers for found in _maps_of(layer)]


def value_path(maps: Iterable[LinearMap]) -> list[LinearMap]:
    """Returns the maps on the path of the values: all but the queries and keys of attention."""
    return [found for found in maps if found.role not in ("query", "key")]


def _maps_of(layer: Any) -> Iterator[LinearMap]:
    if isinstance(layer, ATTENTION):
        for role in ("query", "key", "value", "output"):
            yield LinearMap(role, getattr(layer, f"_{role}_dense").kernel)
        return
    if isinstance(layer, ValueResidualAttention):
        for role in ("query", "key", "value"):
            yield LinearMap(role, getattr(layer, role).kernel)
        yield LinearMap("output", layer.output_projection.kernel)
        return
    if isinstance(layer, ScaledWeightStandardization):
        yield LinearMap("linear", layer.gain)
        return
    kernels = [getattr(layer, name, None) for name in ("kernel", "depthwise_kernel", "pointwise_kernel")]
    kernels = [kernel for kernel in kernels if isinstance(kernel, keras.Variable)]
    if kernels:
        yield from (LinearMap("linear", kernel) for kernel in kernels)
        return
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        yield from _maps_of(inner)
