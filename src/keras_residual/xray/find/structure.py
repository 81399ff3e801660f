"""What can be read off the layers of a block without running it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_residual.graph.nodes import is_functional
from keras_residual.residual.regularizers import DropPath
from keras_residual.residual.residual import Residual
from keras_residual.residual.shapes import ATTENTION, sublayers
from keras_residual.stacks.variables import rank_in_block

RELU_LIKE = ("relu", "relu6")
BOUNDED = ("sigmoid", "tanh")

CLOSED = (*ATTENTION, keras.layers.RNN, keras.layers.Wrapper)
"""Layers that are not looked into: each is one function of what it receives, and may call its own in loops."""

_CONTAINERS = (Residual, keras.Model, keras.Sequential)
_LINEAR = (
    "Activation",  # one with a function that is not linear is found by its function
    "Add",
    "AddMerge",
    "AveragePooling",
    "BroadcastTo",
    "Concat",
    "Cropping",
    "Divide",
    "DropPath",
    "Dropout",
    "ExpandDims",
    "Flatten",
    "GaussianDropout",
    "GaussianNoise",
    "GetItem",
    "GlobalAveragePooling",
    "Identity",
    "InputLayer",
    "LayerScale",
    "Mean",
    "Multiply",
    "Negative",
    "Permute",
    "RepeatVector",
    "Rescaling",
    "Reshape",
    "Scale",
    "ScalarBias",
    "SkipInit",
    "SpatialDropout",
    "Squeeze",
    "StochasticDepth",
    "Subtract",
    "Transpose",
    "TrueDivide",
    "UpSampling",
    "ZeroPadding",
)


@dataclass(frozen=True, slots=True)
class Structure:
    """Counts over the layers of a block.

    Args:
        maps: Linear maps with weights: dense layers and convolutions.
        nonlinear: Layers whose function is not linear, such as activations and attention; what is unknown counts.
        norms: Norm layers.
    """

    maps: int
    nonlinear: int
    norms: int


def structure_of(operations: Iterable[Any]) -> Structure:
    """Returns the counts over the operations and all layers within them."""
    parts = list(leaves(operations))
    norms = sum(is_norm(part) for part in parts)
    return Structure(
        maps=sum(is_map(part) for part in parts),
        nonlinear=sum(not is_linear(part) for part in parts),
        norms=norms,
    )


def leaves(operations: Iterable[Any]) -> Iterator[Any]:
    """Yields each operation, each layer and each operation of a graph within them, but for known containers."""
    for operation in operations:
        if not isinstance(operation, keras.Layer):
            yield operation
            continue
        for layer in sublayers(operation):
            if is_functional(layer):
                yield from (op for op in layer.operations if not isinstance(op, keras.Layer))
            elif not isinstance(layer, _CONTAINERS):
                yield layer


def called_once(operations: Iterable[Any]) -> Iterator[Any]:
    """Yields those of `leaves` that no closed layer holds, which may call them in a loop."""
    operations = list(operations)
    closed = [part for part in leaves(operations) if isinstance(part, CLOSED)]
    held = {id(inner) for outer in closed for part in sublayers(outer) if part is not outer for inner in leaves([part])}
    yield from (part for part in leaves(operations) if id(part) not in held)


def is_norm(operation: Any) -> bool:
    """Returns whether an operation normalises."""
    name = type(operation).__name__
    return ("Norm" in name and "UnitNorm" not in name) or "FilterResponse" in name


def is_map(operation: Any) -> bool:
    """Returns whether an operation is a linear map with weights, apart from its activation."""
    name = type(operation).__name__
    return isinstance(operation, (keras.layers.Dense, keras.layers.EinsumDense)) or (
        isinstance(operation, keras.Layer) and "Conv" in name and "LSTM" not in name and hasattr(operation, "kernel")
    )


def activation_of(operation: Any) -> str | None:
    """Returns the name of the function that makes the operation's output, `"relu"` for example; None for none."""
    name = type(operation).__name__
    if isinstance(operation, keras.layers.RNN) or hasattr(operation, "recurrent_activation"):
        return None
    if name in ("ReLU", "Relu", "Relu6"):
        plain = not getattr(operation, "negative_slope", 0) and not getattr(operation, "threshold", 0)
        return "relu" if plain else name.lower()
    if not isinstance(operation, keras.Layer):
        return name.lower() if name in ("Sigmoid", "Tanh") else None
    function = getattr(operation, "activation", None)
    if isinstance(function, keras.Layer):
        return activation_of(function)
    found = getattr(function, "__name__", None)
    return None if found == "linear" else found


def is_linear(operation: Any) -> bool:
    """Returns whether an operation is known to be linear in its input; a norm counts as if it were."""
    if activation_of(operation) is not None:
        return False
    name = type(operation).__name__
    return is_map(operation) or is_norm(operation) or name.startswith(_LINEAR) or isinstance(operation, DropPath)


def norm_positions(layer: Residual) -> tuple[str, ...]:
    """Returns where a connection has norms of its own, as its argument `norm_position` names it."""
    return tuple(layer._norm_positions) if layer.norm is not None else ()


def number_or_none(value: Any) -> float | None:
    """Returns a plain number as a float, and None for a layer, a name or nothing."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def channel_axis_of(operation: Any, rank: int) -> int:
    """Returns the axis of the channels in the output of an operation, 1 or -1."""
    data_format = getattr(operation, "data_format", None)
    if data_format is None and rank in (4, 5):
        data_format = keras.config.image_data_format()
    return 1 if data_format == "channels_first" and rank > 2 else -1


def distinct(items: Iterable[Any]) -> list[Any]:
    """Returns the items without repetitions, by identity, in order."""
    return list({id(item): item for item in items}.values())


def variables_of(operations: Sequence[Any]) -> list[keras.Variable]:
    """Returns the weights of the layers among the operations, each once."""
    layers = [operation for operation in operations if isinstance(operation, keras.Layer)]
    return distinct(weight for layer in layers for weight in layer.weights)


def trained_weights(model: keras.Layer) -> list[tuple[keras.Variable, tuple[int, ...] | None]]:
    """Returns each trainable weight of a model with the axes that number its filters; None for one without.

    A filter is what makes one output: a column of a dense kernel, an output channel of a convolution, the row of an
    embedding. Blocks that are stacked in one weight have filters of their own.

    Args:
        model: A built model or layer.
    """
    trained = {id(variable) for variable in model.trainable_variables}
    found: dict[int, tuple[keras.Variable, tuple[int, ...] | None]] = {}
    for layer in sublayers(model):
        for variable in layer._trainable_variables:
            if id(variable) in trained and keras.backend.is_float_dtype(variable.dtype):
                stacked = range(len(variable.shape) - rank_in_block(variable))
                axes = filter_axes(layer, variable)
                found.setdefault(id(variable), (variable, None if axes is None else (*stacked, *axes)))
    return list(found.values())


def filter_axes(layer: Any, variable: keras.Variable) -> tuple[int, ...] | None:
    """Returns the axes of a layer's weight that number its filters, from the end; None for biases and those of norms.

    Args:
        layer: The layer that holds it.
        variable: Its weight.
    """
    if rank_in_block(variable) < 2 or is_norm(layer) or variable is getattr(layer, "bias", None):
        return None
    if isinstance(layer, keras.layers.EinsumDense):
        _, kernel, output = layer.equation.replace("->", ",").replace(".", "").split(",")
        return tuple(place - len(kernel) for place, letter in enumerate(kernel) if letter in output)
    if isinstance(layer, keras.layers.Embedding) or "Transpose" in type(layer).__name__:
        return (-2,)
    depthwise = "DepthwiseConv" in type(layer).__name__ or variable is getattr(layer, "depthwise_kernel", None)
    return (-2, -1) if depthwise else (-1,)
