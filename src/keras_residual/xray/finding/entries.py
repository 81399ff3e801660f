"""Where what a model is given first meets weights."""

from __future__ import annotations

from typing import Any

import keras

from keras_residual.graph.nodes import is_functional, nodes_of
from keras_residual.xray.finding.structure import is_map, is_norm


def entries_of(model: Any) -> dict[int, tuple[int, ...]]:
    """Returns the operations in which inputs first meet weights, by identity, each with the indices of these inputs.

    What has no weights lets them pass, and so does a norm. Of a model that is no graph it is the model itself.

    Args:
        model: A built model or layer.
    """
    graph = getattr(model, "_functional", None) or model
    if not is_functional(graph):
        return {id(model): ()}
    reached = {id(tensor): {index} for index, tensor in enumerate(graph.inputs)}
    found: dict[int, set[int]] = {}
    for node in nodes_of(graph):
        inputs: set[int] = set().union(*(reached.get(id(tensor), set()) for tensor in node.input_tensors))
        if not inputs or node.is_input:
            continue
        operation = node.operation
        if isinstance(operation, keras.Layer) and operation.weights and not is_norm(operation):
            found.setdefault(id(operation), set()).update(inputs)
        else:
            for tensor in node.output_tensors:
                reached.setdefault(id(tensor), set()).update(inputs)
    return {operation: tuple(sorted(inputs)) for operation, inputs in found.items()}


def is_entry(layer: Any) -> bool:
    """Returns whether a layer multiplies what it receives by weights of its own."""
    if is_norm(layer) or is_embedding(layer):
        return False
    own = any(len(variable.shape) > 1 for variable in layer._trainable_variables)
    return own or is_map(layer) or isinstance(layer, keras.layers.RNN)


def is_embedding(layer: Any) -> bool:
    """Returns whether a layer looks up rows by whole numbers."""
    return isinstance(layer, keras.layers.Embedding)
