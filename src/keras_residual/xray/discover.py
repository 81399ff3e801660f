"""Where the residual connections of a model are, or its layers where it has none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras

from keras_residual.layers.residual import Residual
from keras_residual.layers.shapes import ATTENTION, sublayers
from keras_residual.stacks.stack import ResidualStack
from keras_residual.stacks.topologies.single import Single
from keras_residual.xray.graph import Graph, Merge
from keras_residual.xray.place import Place, Weight
from keras_residual.xray.structure import (
    is_functional,
    is_norm,
    norm_positions,
    number_or_none,
    structure_of,
    variables_of,
)


@dataclass(frozen=True, slots=True)
class Target:
    """A layer or operation whose calls are watched, and the places that these calls fill.

    Args:
        operation: The layer or operation.
        places: A place for each call; for a stack one for each connection.
        merges: What is known of a sum in a graph, one entry a call; empty for all else.
    """

    operation: Any
    places: list[Place]
    merges: list[Merge]


def discover(model: keras.Layer) -> list[Target]:
    """Returns what is to be watched: the connections of the model, or its layers with weights where it has none.

    Args:
        model: A built model or layer.
    """
    targets = list(_connections(model, set()))
    if not targets:
        targets = [Target(layer, [_layer_place(layer)], []) for layer in _plain_layers(model)]
    return targets


def _connections(layer: Any, seen: set[int]) -> Iterator[Target]:
    if id(layer) in seen:
        return
    seen.add(id(layer))
    if isinstance(layer, Residual):
        if type(layer).call is Residual.call:
            yield Target(layer, [_residual_place(layer)], [])
    elif isinstance(layer, ResidualStack):
        yield Target(layer, _stack_places(layer), [])
    elif is_functional(layer):
        yield from _in_graph(layer, seen)
    elif not isinstance(layer, ATTENTION):
        inner = layer.layers if isinstance(layer, keras.Sequential) else layer._layers
        for part in inner:
            yield from _connections(part, seen)


def _in_graph(model: Any, seen: set[int]) -> Iterator[Target]:
    graph = Graph(model)
    merges: dict[int, list[Merge]] = {}
    for merge in graph.merges():
        merges.setdefault(id(merge.operation), []).append(merge)
    for node in graph.nodes:
        operation = node.operation
        if id(operation) in merges:
            found = merges.pop(id(operation))
            yield Target(operation, [_merge_place(merge) for merge in found], found)
        elif isinstance(operation, keras.Layer):
            yield from _connections(operation, seen)


# --- What is known of each -------------------------------------------------------------------------------------------


def _residual_place(layer: Residual) -> Place:
    facts = _facts(layer)
    return Place(name=layer.name, kind="residual", weights=[(w, None) for w in layer.weights], **facts)


def _facts(layer: Residual) -> dict[str, Any]:
    scale = layer.branch_scale_layer
    return {
        "operations": [layer],
        "structure": structure_of(layer.branch),
        "norm": norm_positions(layer),
        "skip_scale": number_or_none(layer.skip_scale_layer) if layer.merge == "add" else None,
        "scaled": scale is not None,
        "additive": layer.merge in ("add", "concat"),
        "shape_changes": layer.shortcut_layer is not None,
    }


def _merge_place(merge: Merge) -> Place:
    layers = [*merge.operations, *merge.shortcut]
    norms = [operation for operation in merge.operations if is_norm(operation)]
    position = ("post",) if merge.post_norm else ("pre",) if norms else ()
    name = merge.operation.name + (f":{merge.call + 1}" if merge.call else "")
    return Place(
        name=name,
        kind=merge.kind,
        operations=list(merge.operations),
        weights=[(weight, None) for weight in variables_of(layers)],
        structure=structure_of(merge.operations),
        norm=position,
        shape_changes=bool(merge.shortcut),
    )


def _layer_place(layer: keras.Layer) -> Place:
    weights: list[Weight] = [(weight, None) for weight in layer.weights]
    return Place(name=layer.name, kind="layer", operations=[layer], weights=weights, structure=structure_of([layer]))


def _stack_places(stack: ResidualStack) -> list[Place]:
    blocks = stack._blocks
    scales = stack._contexts.values
    multi_stream = not isinstance(stack.topology, Single)
    places = []
    for index in range(stack.depth):
        cell = blocks.cells[0 if blocks.scanned else index]
        slices = dict(zip(map(id, cell.variables), blocks.stacked, strict=True)) if blocks.scanned else {}
        for position, connection in enumerate(cell.connections):
            weights: list[Weight] = [
                (slices[id(w)], index) if blocks.scanned else (w, None) for w in connection.weights
            ]
            place: dict[str, Any] = {"operations": [connection], "structure": structure_of([connection])}
            kind = "layer"
            if isinstance(connection, Residual):
                kind, place = "stack", _facts(connection)
                for name, told in (("skip_scale", "skip_scale"), ("scaled", "branch_scale")):
                    if told in scales:
                        value = float(scales[told][index, position])
                        place[name] = value * (place[name] or 1.0) if name == "skip_scale" else True
            suffix = f".{position}" if len(cell.connections) > 1 else ""
            places.append(
                Place(
                    name=f"{stack.name}.{index}{suffix}",
                    kind=kind,
                    weights=weights,
                    multi_stream=multi_stream,
                    stack=stack,
                    index=index,
                    **place,
                )
            )
    return places


def _plain_layers(model: keras.Layer) -> list[keras.Layer]:
    """Returns the layers that hold weights themselves, in order; norms belong to the layer before them."""
    found: dict[int, keras.Layer] = {}
    inside: set[int] = set()
    for layer in sublayers(model):
        if id(layer) in inside or is_norm(layer):
            continue
        if isinstance(layer, (*ATTENTION, keras.layers.RNN, keras.layers.Bidirectional)):
            inside |= {id(part) for part in sublayers(layer)}
            found[id(layer)] = layer
        elif layer._trainable_variables or layer._non_trainable_variables:
            found[id(layer)] = layer
    return list(found.values())
