"""The numbers that are taken of a connection while it is computed; none of them is part of the loss."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_residual.xray.find.structure import RELU_LIKE, activation_of, channel_axis_of
from keras_residual.xray.quantities.branch import branch_cosine, branch_ratio
from keras_residual.xray.quantities.dead_units import dead_units
from keras_residual.xray.quantities.likeness import sample_cosine
from keras_residual.xray.quantities.numerics import inf_share, nan_share, underflow_share
from keras_residual.xray.quantities.saturation import saturated_units
from keras_residual.xray.quantities.signal import power, squared_mean, variance

Numbers = dict[str, Any]

ACTIVATION_COUNTS = ("dead", "units", "saturated", "bounded")


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
        found |= {
            "branch_variance": variance(added, axis),
            "branch_power": power(added),
            "branch_underflow": underflow_share(added),
            "branch_nan": nan_share(added),
            "branch_inf": inf_share(added),
            "branch_ratio": branch_ratio(received, added),
        }
        if tuple(added.shape) == tuple(getattr(received, "shape", ())):
            found["branch_cosine"] = branch_cosine(received, added)
    return found


def of_signal(x: Any, axis: int) -> Numbers:
    """Returns the numbers of the stream at one depth.

    Args:
        x: The stream.
        axis: Axis of the channels.
    """
    x = ops.stop_gradient(x)
    return {
        "squared_mean": squared_mean(x, axis),
        "variance": variance(x, axis),
        "power": power(x),
        "sample_cosine": sample_cosine(x),
        "nan": nan_share(x),
        "inf": inf_share(x),
    }


def of_activation(operation: Any, out: Any) -> Numbers:
    """Returns how many units are dead or saturated, of how many that could be.

    Args:
        operation: The layer or operation whose output ends with the activation.
        out: What it gives.
    """
    out = ops.stop_gradient(out)
    name = activation_of(operation) or ""
    zero: Any = ops.zeros((), "float32")
    if name in RELU_LIKE:
        axis = channel_axis_of(operation, len(out.shape))
        units = float(out.shape[axis])
        return {"dead": dead_units(out, axis), "units": zero + units, "saturated": zero, "bounded": zero}
    size = float(math.prod(out.shape))
    return {"dead": zero, "units": zero, "saturated": saturated_units(out, name) * size, "bounded": zero + size}


def total(parts: list[Numbers]) -> Numbers:
    """Returns the sums of what `of_activation` counted; zeros where there is nothing."""
    sums: Numbers = {name: ops.zeros((), "float32") for name in ACTIVATION_COUNTS}
    for part in parts:
        sums = {name: sums[name] + part[name] for name in sums}
    return sums
