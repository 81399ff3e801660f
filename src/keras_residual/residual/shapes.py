"""Shapes of one residual connection: which axis holds the channels, and which strides lead from one map to another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import keras

from keras_residual._types import Shape

ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
"""Layers called with a query and a value; in a branch, both are its input."""

LIST_ATTENTION = (keras.layers.Attention, keras.layers.AdditiveAttention)
"""The same, called with a list of the two."""

# Sizes that tell a stride, which divides, from a crop, which subtracts, and rounding up from rounding down: even and
# odd ones, with every remainder of the usual strides.
_PROBES = (240, 241, 242, 243, 247, 480)


@dataclass(frozen=True, slots=True)
class Resampling:
    """How a branch changes the size of one axis: `n` to `ceil(n / stride)`, or `floor`, or to `n * repeats`.

    Args:
        stride: At least 1.
        floor: Whether an incomplete last window is dropped.
        repeats: At least 1; more only where the stride is 1.
    """

    stride: int = 1
    floor: bool = False
    repeats: int = 1

    def size(self, size: int) -> int:
        """Returns the size afterwards."""
        return (size // self.stride if self.floor else -(-size // self.stride)) * self.repeats

    def __str__(self) -> str:
        if self.keeps_size:
            return "n"
        return f"{self.repeats}n" if self.repeats > 1 else f"n/{self.stride} rounded {'down' if self.floor else 'up'}"

    @property
    def keeps_size(self) -> bool:
        """Whether the size is unchanged."""
        return self.stride == self.repeats == 1


def sublayers(layer: keras.Layer) -> Iterator[keras.Layer]:
    """Yields the layer and every layer within, at any depth and under any attribute."""
    # Keras has no public API for this; walking known attributes would miss those of custom layers.
    yield from layer._flatten_layers(include_self=True, recursive=True)


def keep_lora_alpha(source: keras.Layer, target: keras.Layer) -> None:
    """Gives a copy the `lora_alpha` of the original, which Keras reads from the configuration and then resets."""
    if getattr(source, "lora_rank", None):
        setattr(target, "lora_alpha", getattr(source, "lora_alpha"))  # noqa: B009, B010 - of some layers only


def stateful(layer: keras.Layer) -> list[keras.Layer]:
    """Returns the layers within that keep a state for each sample between calls, as an RNN may."""
    return [part for part in sublayers(layer) if getattr(part, "stateful", False)]


def channel_axis(layers: Iterable[keras.Layer], rank: int) -> int:
    """Returns the channel axis, `1` or `-1`, of the maps that `layers` process.

    The first layer with a `data_format` decides. If none has one, maps (rank 4 and 5) follow
    `keras.config.image_data_format()`; vectors and sequences have their features last.
    """
    formats = (getattr(inner, "data_format", None) for layer in layers for inner in sublayers(layer))
    data_format = next((found for found in formats if found), None)
    if data_format is None and rank in (4, 5):
        data_format = keras.config.image_data_format()
    return 1 if data_format == "channels_first" and rank > 2 else -1


def data_format_of(axis: int) -> str:
    """Returns Keras's name for a channel axis of `1` or `-1`."""
    return "channels_first" if axis == 1 else "channels_last"


def channel_axis_of(data_format: str) -> int:
    """Returns the axis of the channels, `1` or `-1`."""
    return 1 if data_format == "channels_first" else -1


def spatial_axes(rank: int, axis: int) -> range:
    """Returns the axes between batch and channels."""
    return range(2, rank) if axis == 1 else range(1, rank - 1)


def output_shape(layer: keras.Layer, shape: Shape) -> Shape:
    """Returns the output shape of `layer` for `shape`, even if the layer does not define `compute_output_shape`."""
    if isinstance(layer, ATTENTION):
        return tuple(layer.compute_output_shape(shape, shape))
    if isinstance(layer, LIST_ATTENTION):
        return tuple(layer.compute_output_shape([shape, shape]))
    try:
        return tuple(layer.compute_output_shape(shape))
    except NotImplementedError:
        return tuple(layer.compute_output_spec(keras.KerasTensor(shape, dtype=layer.compute_dtype)).shape)


def chain_output_shape(layers: Iterable[keras.Layer], shape: Shape) -> Shape:
    """Returns the shape after `layers` one after another."""
    for layer in layers:
        shape = output_shape(layer, shape)
    return shape


def spatial_sizes(layers: list[keras.Layer], shape: Shape, target: Shape, axis: int) -> list[list[tuple[int, int]]]:
    """Returns for each spatial axis pairs (size before, size after) of `layers`, which lead from `shape` to `target`.

    The actual pair where it is known and, where that is ambiguous, what `layers` make of other sizes: 5 to 3 may be a
    stride of 2 or a crop, 240 to 238 can only be a crop. No pairs where a layer does not tell its sizes.
    """
    axes = spatial_axes(len(shape), axis)
    tried: list[tuple[Shape, Shape]] = []
    if any(shape[i] is None or shape[i] != target[i] for i in axes):
        try:
            tried = [(probe, chain_output_shape(layers, probe)) for probe in probes(shape, axes)]
        except Exception:
            # A branch for one size only, for instance with a Reshape. If that is unknown, nothing can be inferred.
            if any(shape[i] is None or target[i] is None for i in axes):
                raise
    pairs = []
    for i in axes:
        known = [] if shape[i] is None or target[i] is None else [(shape[i], target[i])]
        if not known or shape[i] != target[i]:
            known += [(before[i], after[i]) for before, after in tried]
        pairs.append([(before, after) for before, after in known if before is not None and after is not None])
    return pairs


def keeps_axis(layers: list[keras.Layer], shape: Shape, target: Shape, axis: int) -> bool:
    """Returns whether `layers`, which lead from `shape` to `target`, keep the size of `axis`, known or not."""
    if shape[axis] is not None and target[axis] is not None:
        return shape[axis] == target[axis]
    probe = (shape[0], *(_PROBES[0] if size is None else size for size in shape[1:]))
    return chain_output_shape(layers, probe)[axis] in (probe[axis], None)


def infer_resampling(pairs: list[tuple[int, int]]) -> Resampling | None:
    """Returns the smallest change that maps the first size of every pair to the second, or None.

    Without pairs, the size is assumed to be kept: shapes are compared again when the tensors are merged.
    """
    if not pairs:
        return Resampling()
    # At least two positions of the largest size must remain: global pooling leaves one of any size.
    largest = max(size for size, _ in pairs)
    most = largest // 2 if len(pairs) > 1 else largest
    downwards = (Resampling(stride, floor) for stride in range(1, most + 1) for floor in (False, True))
    size, target = pairs[0]
    upwards = [Resampling(repeats=target // size)] if size and target > size else []
    return next((found for found in (*upwards, *downwards) if all(found.size(n) == m for n, m in pairs)), None)


def probes(shape: Shape, axes: Iterable[int] | None = None) -> Iterator[Shape]:
    """Yields `shape` with trial sizes, even and odd, on `axes`, or on all axes of unknown size."""
    changed = [i for i, size in enumerate(shape) if i and size is None] if axes is None else list(axes)
    for size in _PROBES:
        yield tuple(size if i in changed else known for i, known in enumerate(shape))


def agree(first: Shape, second: Shape) -> bool:
    """Returns whether two shapes can be equal, apart from the batch: an unknown size may be any."""
    pairs = zip(first[1:], second[1:], strict=False)
    return len(first) == len(second) and all(a is None or b is None or a == b for a, b in pairs)
