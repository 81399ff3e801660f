"""The shortcut around a chain of layers, or the reason why there is none."""

from __future__ import annotations

from keras_residual.graph.calls import Call
from keras_residual.residual import shapes


class NoShortcut(ValueError):  # noqa: N818 - it says what is missing
    """No shortcut can be made; the text says why."""


def shortcut_around(calls: list[Call]) -> str:
    """Returns `"identity"` or `"projection"`, as `Residual`'s `shortcut="auto"` will choose it.

    Args:
        calls: Consecutive plain calls.

    Raises:
        NoShortcut: If rank or sizes change in a way that no shortcut can follow.
    """
    shape, target = calls[0].input_shape, calls[-1].output_shape
    layers = [call.operation for call in calls]
    axis = shapes.channel_axis(layers, len(shape))
    if len(shape) != len(target):
        raise NoShortcut(f"no shortcut leads from {len(shape)} axes to {len(target)}")
    if len(shape) < 2 or shape[axis] is None or target[axis] is None:
        raise NoShortcut(f"the number of channels of {shape} or {target} is not known")
    sizes = shapes.spatial_sizes(layers, shape, target, axis)
    changes = [shapes.infer_resampling(pairs) for pairs in sizes]
    if None in changes:
        before, after = sizes[changes.index(None)][0]
        raise NoShortcut(f"no stride or whole factor takes a size of {before} to {after}; padding='same' keeps sizes")
    keeps_size = all(change is not None and change.keeps_size for change in changes)
    return "identity" if keeps_size and shape[axis] == target[axis] else "projection"
