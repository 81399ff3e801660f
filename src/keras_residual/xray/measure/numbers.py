"""The numbers that are taken of a connection while it is computed; none of them is part of the loss."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_residual.xray.find.structure import activation_of, channel_axis_of
from keras_residual.xray.quantities import measured_of

Numbers = dict[str, Any]


def of_connection(received: Any, added: Any, axis: int) -> Numbers:
    """Returns the numbers of one connection: what it receives, and what its branch adds to it.

    No gradient goes through them. A loop of TensorFlow's would send zeros back through each of its outputs, and zero
    times the derivative of a root at zero is no number.

    Args:
        received: What it receives, or None.
        added: What its branch adds, or None.
        axis: Axis of the channels.
    """
    found: Numbers = {}
    if received is not None and keras.backend.is_float_dtype(keras.backend.standardize_dtype(received.dtype)):
        received = ops.stop_gradient(received)
        found |= {f"in_{name}": value for name, value in of_signal(received, axis).items()}
    if added is not None:
        added = ops.stop_gradient(added)
        numbers = {quantity.key: quantity.measure(received, added, axis) for quantity in measured_of("branch")}
        numbers |= {quantity.key: quantity.measure(added) for quantity in measured_of("values")}
        found |= {f"branch_{name}": value for name, value in numbers.items() if value is not None}
    return found


def of_signal(x: Any, axis: int) -> Numbers:
    """Returns the numbers of the stream at one depth.

    Args:
        x: The stream.
        axis: Axis of the channels.
    """
    x = ops.stop_gradient(x)
    found = {quantity.key: quantity.measure(x, axis) for quantity in measured_of("stream")}
    return found | {quantity.key: quantity.measure(x) for quantity in measured_of("values")}


def watched_activations() -> set[str]:
    """Returns the names of the functions whose outputs are looked at."""
    return {name for quantity in measured_of("units") for name in quantity.activations}


def of_activation(operation: Any, out: Any) -> Numbers:
    """Returns for each quantity of units how many are found, and of how many, `…_of`.

    Args:
        operation: The layer or operation whose output ends with the activation.
        out: What it gives.
    """
    out = ops.stop_gradient(out)
    name, axis = activation_of(operation) or "", channel_axis_of(operation, len(out.shape))
    found = total([])
    for quantity in measured_of("units"):
        if name in quantity.activations:
            count, of = quantity.measure(out, axis, name)
            found |= {quantity.key: count, f"{quantity.key}_of": found[f"{quantity.key}_of"] + float(of)}
    return found


def total(parts: list[Numbers]) -> Numbers:
    """Returns the sums of what `of_activation` counted; zeros where there is nothing."""
    keys = [name for quantity in measured_of("units") for name in (quantity.key, f"{quantity.key}_of")]
    sums: Numbers = {name: ops.zeros((), "float32") for name in keys}
    for part in parts:
        sums = {name: sums[name] + part[name] for name in sums}
    return sums
