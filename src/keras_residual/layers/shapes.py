"""Shapes of one residual connection: which axis holds the channels, and which strides lead from one map to another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import keras

Shape = tuple[int | None, ...]

ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
"""Layers called with a query and a value; in a branch both are its input."""

# A size that every stride in use divides, and its double: together they tell a stride, which divides both, from a crop,
# which takes the same from both.
_PROBES = (240, 480)


def sublayers(layer: keras.Layer) -> Iterator[keras.Layer]:
    """Yields the layer and every layer in it, however deep and by whatever attribute."""
    # Keras has no public name for this; a walk over known attributes would miss those of users' own layers.
    yield from layer._flatten_layers(include_self=True, recursive=True)


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
    if isinstance(layer, ATTENTION):
        return tuple(layer.compute_output_shape(shape, shape))
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

    The pair at hand, where it is known, and where it does not settle the matter what `layers` make of two more sizes:
    5 to 3 may be a stride of 2 or a crop, 240 to 238 can only be a crop.
    """
    axes = spatial_axes(len(shape), axis)
    tried: list[tuple[Shape, Shape]] = []
    if any(shape[i] is None or shape[i] != target[i] for i in axes):
        try:
            tried = [(probe, chain_output_shape(layers, probe)) for probe in (_probe(shape, axes, n) for n in _PROBES)]
        except Exception:
            # A branch for one size only, by a Reshape for instance. Without that size there is nothing to go by.
            if any(shape[i] is None or target[i] is None for i in axes):
                raise
    pairs = []
    for i in axes:
        known = [] if shape[i] is None or target[i] is None else [(shape[i], target[i])]
        if not known or shape[i] != target[i]:
            known += [(before[i], after[i]) for before, after in tried]
        pairs.append([(int(before or 0), int(after or 0)) for before, after in known])
    return pairs


def keeps_axis(layers: list[keras.Layer], shape: Shape, target: Shape, axis: int) -> bool:
    """Returns whether `layers`, which lead from `shape` to `target`, keep the size of `axis`, known or not."""
    if shape[axis] is not None and target[axis] is not None:
        return shape[axis] == target[axis]
    probe = (shape[0], *(_PROBES[0] if size is None else size for size in shape[1:]))
    return chain_output_shape(layers, probe)[axis] == probe[axis]


def infer_stride(pairs: list[tuple[int, int]]) -> int | None:
    """Returns the smallest stride `s` that takes each size `n` to `ceil(n / s)`, or None where there is none."""
    # At least two positions of the largest size must be left: one is what global pooling leaves of any size.
    largest = max(size for size, _ in pairs)
    most = largest // 2 if len(pairs) > 1 else largest
    return next((s for s in range(1, most + 1) if all(-(-n // s) == m for n, m in pairs)), None)


def _probe(shape: Shape, axes: range, size: int) -> Shape:
    return tuple(size if i in axes else dimension for i, dimension in enumerate(shape))
