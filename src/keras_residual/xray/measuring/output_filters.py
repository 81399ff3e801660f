"""Which axes of a weight number the outputs that it makes."""

from __future__ import annotations

from typing import Any

import keras

from keras_residual.residual.shapes import sublayers
from keras_residual.stacks.variables import rank_in_block
from keras_residual.xray.finding.structure import is_norm


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
