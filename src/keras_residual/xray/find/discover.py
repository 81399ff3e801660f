"""Where the residual connections of a model are, or its layers where it has none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_residual.graph.nodes import is_functional
from keras_residual.residual.residual import Residual
from keras_residual.residual.shapes import sublayers
from keras_residual.stacks.stack import ResidualStack
from keras_residual.stacks.topologies.single import Single
from keras_residual.xray.find.graph import MergeNode, NodeGraph
from keras_residual.xray.find.inside import Insides, TracedCall, look_inside
from keras_residual.xray.find.replaced import one_at_a_time
from keras_residual.xray.find.structure import (
    CLOSED,
    Structure,
    activation_of,
    is_norm,
    norm_positions,
    number_or_none,
    structure_of,
)


@dataclass(frozen=True, slots=True)
class Target:
    """A layer or operation whose calls are watched, and the places that these calls fill.

    Args:
        operation: The layer or operation.
        places: A place for each call; for a stack, and for a layer with connections in its `call`, one for each
            connection.
        merges: What is known of a sum in a graph, one entry a place; empty for all else.
        calls: The calls of a layer with connections in its `call`; empty for all else.
    """

    operation: Any
    places: list[ReportedBlock]
    merges: list[MergeNode]
    calls: list[TracedCall] = field(default_factory=list)


@one_at_a_time
def discover(model: keras.Layer, x: Any = None, *, training: bool = True) -> list[Target]:
    """Returns what is to be watched: the connections of the model, or its layers with weights where it has none.

    Args:
        model: A built model or layer.
        x: A batch, with which the model is called once if it has layers whose `call` is code of others, to see the
            connections in there. Without it such a layer counts as one function.
        training: Whether the layers act as in training.
    """
    insides = Insides() if x is None else look_inside(model, x, training)
    targets = list(_Walk(insides).connections(model, ()))
    if not targets:
        targets = [Target(layer, [_layer_place(layer, behind)], []) for layer, behind in _plain_layers(model)]
    return targets


class _Walk:
    """The way through a model, that passes each layer once."""

    def __init__(self, insides: Insides) -> None:
        self.insides = insides
        self._seen: set[int] = set()

    def connections(self, layer: Any, path: tuple[str, ...]) -> Iterator[Target]:
        """Yields what is to be watched in a layer, `path` being the names of the layers that lead to it."""
        if id(layer) in self._seen:
            return
        self._seen.add(id(layer))
        if isinstance(layer, Residual):
            if type(layer).call is Residual.call:
                yield Target(layer, [_residual_place(layer)], [])
        elif isinstance(layer, ResidualStack):
            yield Target(layer, _stack_places(layer), [])
        elif is_functional(layer):
            yield from self._in_graph(layer, path)
        elif not isinstance(layer, CLOSED):
            if id(layer) in self.insides.calls:
                yield _inside(layer, self.insides.calls[id(layer)], path)
            inner = layer.layers if isinstance(layer, keras.Sequential) else layer._layers
            for part in inner:
                yield from self.connections(part, (*path, part.name))

    def _in_graph(self, model: Any, path: tuple[str, ...]) -> Iterator[Target]:
        graph = NodeGraph.of_model(model, self.insides.value_free)
        merges: dict[int, list[MergeNode]] = {}
        for merge in graph.merges():
            merges.setdefault(id(merge.operation), []).append(merge)
        for node in graph.nodes:
            operation = node.operation
            if id(operation) in merges:
                found = merges.pop(id(operation))
                yield Target(operation, [_merge_place(merge, _name(merge)) for merge in found], found)
            elif isinstance(operation, keras.Layer):
                yield from self.connections(operation, (*path, operation.name))


def _inside(layer: keras.Layer, calls: list[TracedCall], path: tuple[str, ...]) -> Target:
    places = []
    for number, call in enumerate(calls, start=1):
        counts: dict[str, int] = {}
        for merge in call.merges:
            name = _name(merge)
            if not isinstance(merge.operation, keras.Layer):
                counts[merge.kind] = counts.get(merge.kind, 0) + 1
                name = f"{merge.kind}_{counts[merge.kind]}"
            suffix = f":{number}" if number > 1 else ""
            places.append(_merge_place(merge, "/".join((*path, name)) + suffix))
    return Target(layer, places, [merge for call in calls for merge in call.merges], calls)


def _name(merge: MergeNode) -> str:
    return merge.operation.name + (f":{merge.call + 1}" if merge.call else "")


# --- What is known of each -------------------------------------------------------------------------------------------


def _residual_place(layer: Residual) -> ReportedBlock:
    facts = _facts(layer)
    return ReportedBlock(name=layer.name, kind="residual", weights=[(w, None) for w in layer.weights], **facts)


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


def _merge_place(merge: MergeNode, name: str) -> ReportedBlock:
    norms = [operation for operation in merge.operations if is_norm(operation)]
    position = ("post",) if merge.post_norm else ("pre",) if norms else ()
    return ReportedBlock(
        name=name,
        kind=merge.kind,
        operations=list(merge.operations),
        weights=[(weight, None) for weight in merge.variables],
        structure=structure_of(merge.operations),
        norm=position,
        shape_changes=bool(merge.shortcut),
    )


def _layer_place(layer: keras.Layer, behind: list[keras.Layer]) -> ReportedBlock:
    weights: list[Weight] = [(weight, None) for weight in layer.weights]
    operations = [layer, *behind]
    structure = structure_of(operations)
    return ReportedBlock(name=layer.name, kind="layer", operations=operations, weights=weights, structure=structure)


def _stack_places(stack: ResidualStack) -> list[ReportedBlock]:
    blocks = stack._blocks
    scales = stack._contexts.values
    stacked = stack.execution == "scan"
    multi_stream = not isinstance(stack.topology, Single)
    places = []
    for index in range(stack.depth):
        cell = blocks.cell(index)
        for position, connection in enumerate(cell.connections):
            weights: list[Weight] = [(weight, index if stacked else None) for weight in connection.weights]
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
                ReportedBlock(
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


def _plain_layers(model: keras.Layer) -> list[tuple[keras.Layer, list[keras.Layer]]]:
    """Returns the layers that hold weights themselves, in order, each with the activations behind it.

    Norms and activations of their own belong to the layer before them. Norms are the layers where there are no others.
    """
    return _weighted_layers(model, norms=False) or _weighted_layers(model, norms=True)


def _weighted_layers(model: keras.Layer, *, norms: bool) -> list[tuple[keras.Layer, list[keras.Layer]]]:
    found: dict[int, tuple[keras.Layer, list[keras.Layer]]] = {}
    inside: set[int] = set()
    for layer in sublayers(model):
        if id(layer) in inside:
            continue
        if isinstance(layer, CLOSED):
            inside |= {id(part) for part in sublayers(layer)}
            if layer.weights:
                found[id(layer)] = layer, []
        elif is_norm(layer) and not norms:
            continue
        elif layer._trainable_variables or layer._non_trainable_variables:
            found[id(layer)] = layer, []
        elif found and not layer._layers and activation_of(layer) is not None:
            list(found.values())[-1][1].append(layer)
    return list(found.values())


Weight = tuple[keras.Variable, int | None]
"""A variable, and which slice of it along the leading axis is meant where blocks are stacked in it."""


@dataclass(kw_only=True, slots=True)
class ReportedBlock:
    """One block of the report.

    Args:
        name: How the report names it: the name of the layer, or of the stack with the block's index.
        kind: `"residual"`, `"stack"`, `"add"`, `"concatenate"` or `"layer"`.
        operations: The layers and operations of the branch, with what is in them.
        weights: Its weights.
        structure: What is known of the branch without running it.
        norm: Where there are norms: some of `"pre"`, `"out"`, `"post"`, or empty.
        skip_scale: Factor on the shortcut where it is a known number, else None.
        scaled: Whether a learned or a given factor stands on the branch.
        additive: Whether the two paths are summed, or concatenated, as they are.
        shape_changes: Whether the shortcut is no identity.
        multi_stream: Whether the stack carries several streams.
        stack: The stack that holds the block, if any.
        index: Index of the block in its stack.
    """

    name: str
    kind: str
    operations: Sequence[Any]
    weights: Sequence[Weight]
    structure: Structure
    norm: tuple[str, ...] = ()
    skip_scale: float | None = None
    scaled: bool = False
    additive: bool = True
    shape_changes: bool = False
    multi_stream: bool = False
    stack: Any = None
    index: int = 0

    @property
    def is_connection(self) -> bool:
        """Whether the block has a shortcut."""
        return self.kind != "layer"

    @property
    def frozen(self) -> bool:
        """Whether it has weights that could be trained, and none of them is."""
        trained = [v for v, _ in self.weights if keras.backend.is_float_dtype(v.dtype)]
        return bool(trained) and not any(v.trainable for v in trained)
