"""The calls of layers in a Sequential or Functional model, in order, and which of them use the output of another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras

from keras_residual._types import Shape
from keras_residual.graph.nodes import nodes_behind, producer


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer or an operation.

    Args:
        operation: What is called.
        inputs: Its input tensors, without masks.
        outputs: Its output tensors.
        plain: Whether it is a layer called with one tensor, as the first and only argument, that returns one.
    """

    operation: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    plain: bool

    @property
    def name(self) -> str:
        """Name of the layer."""
        return self.operation.name

    @property
    def input_shape(self) -> Shape:
        """Shape of the first input."""
        return tuple(self.inputs[0].shape)

    @property
    def output_shape(self) -> Shape:
        """Shape of the first output."""
        return tuple(self.outputs[0].shape)


class Graph:
    """The calls of one model, without those inside nested models.

    Args:
        model: A built Sequential or Functional model.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.calls = _in_order(model)
        self._made_outside = {id(tensor) for tensor in model.inputs}
        self._returned = {id(tensor) for tensor in model.outputs}

    @cached_property
    def by_name(self) -> dict[str, list[Call]]:
        """The calls of each layer, by its name."""
        found: dict[str, list[Call]] = {}
        for call in self.calls:
            found.setdefault(call.name, []).append(call)
        return found

    @cached_property
    def _consumers(self) -> dict[int, list[Call]]:
        found: dict[int, list[Call]] = {}
        for call in self.calls:
            for tensor in call.inputs:
                found.setdefault(id(tensor), []).append(call)
        return found

    def consumers(self, tensor: Any) -> list[Call]:
        """Returns the calls that use a tensor."""
        return self._consumers.get(id(tensor), [])

    def is_returned(self, call: Call) -> bool:
        """Whether an output of a call is an output of the model."""
        return any(id(tensor) in self._returned for tensor in call.outputs)

    def is_shared(self, call: Call) -> bool:
        """Whether the layer is called more than once."""
        return len(self.by_name[call.name]) > 1

    def is_link(self, call: Call) -> bool:
        """Whether a call can be in a chain: one tensor in, one out, and its layer is called once."""
        return len(call.inputs) == len(call.outputs) == 1 and not self.is_shared(call)

    def following(self, call: Call) -> Call | None:
        """Returns the only call that uses the output of `call`; None if others do too, or the model returns it."""
        consumers = self.consumers(call.outputs[0])
        return consumers[0] if len(consumers) == 1 and not self.is_returned(call) else None

    def chains(self) -> Iterator[list[Call]]:
        """Yields the longest chains of links in which each uses the output of only the one before it."""
        placed: set[int] = set()
        for first in self.calls:
            if id(first) in placed or not self.is_link(first):
                continue
            chain = [first]
            while (following := self.following(chain[-1])) is not None and self.is_link(following):
                chain.append(following)
            placed |= {id(call) for call in chain}
            yield chain

    def is_bypassed(self, chain: list[Call]) -> bool:
        """Whether another path leads from the input of a chain past its end."""
        others = [call for call in self.consumers(chain[0].inputs[0]) if call is not chain[0]]
        behind = self.consumers(chain[-1].outputs[0])
        return bool(self._reached(others) & self._reached(behind))

    def _reached(self, calls: list[Call]) -> set[int]:
        found: set[int] = set()
        waiting = list(calls)
        while waiting:
            call = waiting.pop()
            if id(call) not in found:
                found.add(id(call))
                waiting.extend(taker for tensor in call.outputs for taker in self.consumers(tensor))
        return found

    def beyond(self, true_of: Callable[[Call], bool], *, before: bool) -> set[int]:
        """Returns the ids of the calls that have a call with a property before, or after, them."""
        marked: set[int] = set()
        found: set[int] = set()
        for call in self.calls if before else reversed(self.calls):
            here, there = (call.inputs, call.outputs) if before else (call.outputs, call.inputs)
            reached = any(id(tensor) in marked for tensor in here)
            if reached:
                found.add(id(call))
            if reached or true_of(call):
                marked |= {id(tensor) for tensor in there}
        return found


def _in_order(model: Any) -> list[Call]:
    """Returns the calls, each after those whose outputs it uses."""
    given = {id(tensor): producer(tensor) for tensor in model.inputs}
    nodes = nodes_behind(model.outputs, given, inputs_of=_inputs)
    calls = [node for node in nodes if not node.is_input]
    return [Call(node.operation, _inputs(node), tuple(node.outputs), _is_plain(node)) for node in calls]


def _inputs(node: Any) -> tuple[Any, ...]:
    # Keras records a mask as the tensor that it is computed from; it is not a path of the signal.
    arguments = (node.arguments.args, {k: v for k, v in node.arguments.kwargs.items() if k != "mask"})
    return tuple(part for part in keras.tree.flatten(arguments) if isinstance(part, keras.KerasTensor))


def _is_plain(node: Any) -> bool:
    arguments, named = node.arguments.args, node.arguments.kwargs
    return (
        isinstance(node.operation, keras.Layer)
        and len(arguments) == len(node.outputs) == 1
        and isinstance(arguments[0], keras.KerasTensor)
        # Keras itself notes these; `training=True` is the user's.
        and all(key == "mask" or value is None or (key == "training" and not value) for key, value in named.items())
    )
