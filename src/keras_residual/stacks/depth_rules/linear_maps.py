"""The linear maps of a branch, in order: what rules about initial weights act on."""

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
        kernel: What its size is proportional to: the matrix, or the gain of one that is standardised.
    """

    role: str
    kernel: keras.Variable


def linear_maps(layers: Iterable[keras.Layer]) -> list[LinearMap]:
    """Returns the linear maps of built layers, in the order in which they act; biases are not part of them.

    Layers in other layers are found too, in the order in which the outer one got them. An attention layer of one's own
    counts as the linear maps in it, since nothing tells its queries and keys from its values.
    """
    return [found for layer in layers for found in _maps_of(layer)]


def value_path(maps: Iterable[LinearMap]) -> list[LinearMap]:
    """Returns the maps whose product the branch is linear in: all but an attention's queries and keys."""
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
