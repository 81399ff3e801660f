"""The nodes of a graph of Keras operations, in the order in which they are computed.

Keras has no public names for the graph that it walks itself, so what it records is read here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras


def is_functional(model: Any) -> bool:
    """Returns whether a model is a graph of operations that can be read; subclasses may be."""
    return isinstance(model, keras.Model) and hasattr(model, "_nodes_by_depth")


def is_plain_graph(model: Any) -> bool:
    """Returns whether an object is a Sequential or a Functional model itself, not an instance of a subclass."""
    kind = type(model)
    return kind is keras.Sequential or (kind.__name__ == "Functional" and kind.__module__.startswith("keras."))


def producer(tensor: Any) -> Any:
    """Returns the node whose call made a symbolic tensor."""
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def nodes_of(model: Any) -> list[Any]:
    """Returns the nodes of a built Sequential or Functional model, those of its inputs first."""
    return nodes_behind(model.outputs, {id(tensor): producer(tensor) for tensor in model.inputs})


def nodes_behind(
    outputs: Iterable[Any],
    given: Mapping[int, Any] = MappingProxyType({}),
    *,
    inputs_of: Callable[[Any], Sequence[Any]] = lambda node: node.input_tensors,
) -> list[Any]:
    """Returns the nodes that tensors are computed by, each after those that it depends on.

    Args:
        outputs: Symbolic tensors.
        given: Nodes by the identity of the tensors that they stand for. They come first, and nothing before them is
            followed.
        inputs_of: Returns the tensors of a node that are followed.
    """
    found = {id(node): node for node in given.values()}

    def maker(tensor: Any) -> Any:
        return given[id(tensor)] if id(tensor) in given else producer(tensor)

    # A loop, since graphs may be deeper than Python's stack.
    waiting = [maker(tensor) for tensor in outputs][::-1]
    while waiting:
        node = waiting[-1]
        missing = [] if id(node) in found else [n for n in map(maker, inputs_of(node)) if id(n) not in found]
        if missing:
            waiting.extend(reversed(missing))
        else:
            found[id(node)] = waiting.pop()
    return list(found.values())
