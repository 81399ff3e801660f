"""Shapes of one residual connection: which axis holds the channels, and which strides lead from one map to another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import keras

Shape = tuple[int | None, ...]

# A size that every stride in use divides, and its double: together they tell a stride, which divides both, from a crop,
# which takes the same from both.
_PROBES = (240, 480)


def sublayers(layer: keras.Layer) -> Iterator[keras.Layer]:
    """Yields the layer and, for a container that shows them, the layers in it."""
    yield layer
    for inner in getattr(layer, "layers", ()):
        yield from sublayers(inner)


def channel_axis(layers: Iterable[keras.Layer], rank: int) -> int:
    """Returns the axis of the channels, `1` or `-1`, of the maps that `layers` work on.

    The first layer with a `data_format` decides; where none has one, maps (rank 4 and 5) follow
    `keras.config.image_data_format()`, vectors and sequences have their features last.
    """
    formats = (getattr(inner, "data_format", None) for layer in layers for inner in sublayers(layer))
    data_format = next((found for found in formats if found), None)
    if data_format is None and rank in (4, 5):
        data_format = keras.config.image_data_format()
    return 1 if data_format == "channels_first" and rank > 2 else -1


def data_format_of(axis: int) -> str:
    """Returns Keras's name for a channel axis of `1` or `-1`."""
    return "channels_first" if axis == 1 else "channels_last"


def spatial_axes(rank: int, axis: int) -> range:
    """Returns the axes between batch and channels."""
    return range(2, rank) if axis == 1 else range(1, rank - 1)


def output_shape(layer: keras.Layer, shape: Shape) -> Shape:
    """Returns the shape that `layer` makes of `shape`, also where the layer does not define `compute_output_shape`."""
    try:
        return tuple(layer.compute_output_shape(shape))
    except NotImplementedError:
        return tuple(layer(keras.KerasTensor(shape, dtype=layer.compute_dtype)).shape)


def chain_output_shape(layers: Iterable[keras.Layer], shape: Shape) -> Shape:
    """Returns the shape after `layers` one after another."""
    for layer in layers:
        shape = output_shape(layer, shape)
    return shape


def spatial_sizes(layers: list[keras.Layer], shape: Shape, target: Shape, axis: int) -> list[list[tuple[int, int]]]:
    """Returns for each spatial axis pairs (size before, size after) of `layers`, which lead from `shape` to `target`.

    One pair where the size is known; else what `layers` make of two sizes that are tried.
    """
    pairs = []
    tried = None
    for spatial in spatial_axes(len(shape), axis):
        size, wanted = shape[spatial], target[spatial]
        if size is not None and wanted is not None:
            pairs.append([(size, wanted)])
            continue
        tried = tried or [(_probe(shape, n), chain_output_shape(layers, _probe(shape, n))) for n in _PROBES]
        pairs.append([(int(before[spatial] or 0), int(after[spatial] or 0)) for before, after in tried])
    return pairs


def infer_stride(pairs: list[tuple[int, int]]) -> int | None:
    """Returns the smallest stride `s` that takes each size `n` to `ceil(n / s)`, or None where there is none."""
    size, wanted = pairs[0]
    if not 0 < wanted <= size:
        return None
    return next((s for s in range(1, size + 1) if all(-(-n // s) == m for n, m in pairs)), None)


def _probe(shape: Shape, size: int) -> Shape:
    return (shape[0], *(size if dimension is None else dimension for dimension in shape[1:]))
