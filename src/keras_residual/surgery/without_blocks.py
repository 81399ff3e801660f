"""Removal of residual blocks from a model."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import keras

from keras_residual.graph.calls import Call, Graph
from keras_residual.graph.nodes import is_plain_graph
from keras_residual.layers.pooling import SymmetricMaxPool2D
from keras_residual.residual.merges import AddMerge
from keras_residual.residual.residual import Residual
from keras_residual.stacks.stack import ResidualStack
from keras_residual.surgery.copies import Copies
from keras_residual.surgery.models import nested_models
from keras_residual.surgery.rewrite import leaving_out
from keras_residual.surgery.roles import MIXING

_SUMS = (AddMerge, keras.layers.Add)
_MAX_POOLS = (
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.MaxPooling3D,
    SymmetricMaxPool2D,
)


@dataclass(frozen=True)
class Block:
    """A residual block of a model, and whether it can be taken out.

    Args:
        name: Its name as the X-ray has it, `"stage2_block1"` or for a block of a stack `"stage2_blocks.3"`; in a nested
            model with the path before it.
        layer: The `Residual`, or the stack that holds it.
        index: Index of the block in its stack; None for a `Residual`.
        hindrance: Why it has to stay; None where it can go.
    """

    name: str
    layer: Any
    index: int | None
    hindrance: str | None


def blocks_of(model: Any) -> list[Block]:
    """Returns the residual blocks of a built Sequential or Functional model and of the models inside it, in order."""
    return list(_blocks(model, "", shared=False))


def _blocks(model: Any, path: str, *, shared: bool) -> Iterator[Block]:
    graph = Graph(model)
    seen: set[int] = set()
    for call in graph.calls:
        layer = call.operation
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        several = shared or graph.is_shared(call)
        if is_plain_graph(layer):
            yield from _blocks(layer, f"{path}{layer.name}/", shared=several)
        elif isinstance(layer, Residual):
            yield Block(f"{path}{layer.name}", layer, None, _hindrance(call, several) or _no_identity(call))
        elif isinstance(layer, ResidualStack):
            hindrance = _hindrance(call, several) or layer.why_not_fewer()
            for index in range(layer.depth):
                yield Block(f"{path}{layer.name}.{index}", layer, index, hindrance)


def _hindrance(call: Call, shared: bool) -> str | None:
    if type(call.operation) not in (Residual, ResidualStack):
        return f"it is of a subclass, {type(call.operation).__name__}"
    if shared:
        return "it is called more than once"
    return None if call.plain else "it is called with arguments beside its input"


def _no_identity(call: Call) -> str | None:
    """Returns why a connection without its branch is more than its activation; None where it is not."""
    layer: Residual = call.operation
    shortcut: Any = layer.shortcut_layer
    if call.input_shape != call.output_shape:
        return f"it changes the shape, {call.input_shape} to {call.output_shape}"
    if shortcut is not None:
        return f"its shortcut is {shortcut.name!r} ({type(shortcut).__name__}), not an identity, and is needed"
    if type(layer.merge_layer) not in _SUMS:
        return f"its paths are not added up, but merged by {type(layer.merge_layer).__name__}"
    if layer.skip_scale_layer not in (None, 1.0):
        return "it scales its shortcut, by `skip_scale`"
    if layer.preactivation:
        return "its preactivation goes to both paths"
    return None if layer.post_norm is None else "it has a norm after the sum"


def without_blocks(owner: str, model: Any, names: Collection[str]) -> Any:
    """Returns a copy of a model without some of its blocks; the rest keeps its weights, names and flags.

    What a block's shortcut carries goes on alone. An activation behind the sum stays, under the name of the block,
    unless it is a ReLU of what comes from one. A stack of which no block is left goes with them. The copy is not
    compiled.

    Args:
        owner: The function that was called, for messages.
        model: A built Sequential or Functional model, which has been checked.
        names: Names of blocks of `blocks_of(model)` that can go.
    """
    chosen = [block for block in blocks_of(model) if block.name in names]
    gone = {id(block.layer) for block in chosen if block.index is None}
    fewer: dict[int, list[int]] = {}
    for block in chosen:
        if block.index is not None:
            fewer.setdefault(id(block.layer), list(range(block.layer.depth))).remove(block.index)
    idle = {id(layer) for _, inner in nested_models(model) for layer in _idle(Graph(inner), gone)}
    copies = Copies(owner)
    made: dict[int, Any] = {}

    def of(operation: Any) -> Any:
        if is_plain_graph(operation):
            renewed = leaving_out(operation, copy)
            copies.note_model(operation, renewed)
            return renewed
        if id(operation) in gone:
            return None if id(operation) in idle else _left_of(operation, copies)
        if id(operation) in fewer:
            kept = fewer[id(operation)]
            return operation.with_blocks(kept) if kept else None
        return copies.copy(operation)

    def copy(operation: Any) -> Any:
        if id(operation) not in made:
            made[id(operation)] = of(operation)
        return made[id(operation)]

    renewed = copy(model)
    copies.bring_over()
    return renewed


def _left_of(layer: Residual, copies: Copies) -> keras.Layer:
    """Returns the activation of a connection that is left out, by the connection's name."""
    if isinstance(layer.activation, keras.Layer):
        return copies.copy(layer.activation)
    return keras.layers.Activation(layer.activation, name=layer.name, dtype=layer.dtype_policy)


def _idle(graph: Graph, gone: set[int]) -> Iterator[Any]:
    """Yields the connections among those that go of which nothing has to stay."""
    makers = {id(tensor): call for call in graph.calls for tensor in call.outputs}
    for call in graph.calls:
        layer = call.operation
        if id(layer) in gone and (layer.activation in (None, keras.activations.linear) or _is_rectified(call, makers)):
            yield layer


def _is_rectified(call: Call, makers: dict[int, Call]) -> bool:
    """Whether a connection ends with a ReLU, and what it gets comes from one, so that it has nothing left to do."""
    if not _ends_with_relu(call.operation):
        return False
    before = makers.get(id(call.inputs[0]))
    while before is not None and isinstance(before.operation, _MAX_POOLS):
        before = makers.get(id(before.inputs[0]))
    return before is not None and _ends_with_relu(before.operation)


def _ends_with_relu(layer: Any) -> bool:
    if type(layer) is keras.layers.ReLU:
        return layer.max_value is None and not layer.negative_slope and not layer.threshold
    if not isinstance(layer, (Residual, keras.layers.Activation, *MIXING)):
        return False
    return layer.activation is keras.activations.relu or _ends_with_relu(layer.activation)
