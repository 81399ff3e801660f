"""The residual connections of a Functional model: sums and concatenations of which one input reaches the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from keras_residual.xray.structure import distinct, is_linear, is_map, is_norm

_MERGES = {"Add": "add", "AddMerge": "add", "Concatenate": "concatenate"}
_VALUE_FREE = ("PositionEmbedding", "Shape", "ZerosLike", "OnesLike", "FullLike")
"""Operations whose output depends on the shape of their input and not on what it holds."""


@dataclass(frozen=True, slots=True)
class Merge:
    """A sum or a concatenation that closes a residual connection.

    Args:
        operation: The layer or operation.
        kind: `"add"` or `"concatenate"`.
        skip: Index of the skip path among its tensors.
        operations: What is on the branch, from the place where the paths part.
        shortcut: What is on the skip path; empty for an identity.
        source: The symbolic tensor that both paths start from.
        holder: The model in whose graph it is.
        output: The symbolic tensor that comes out.
        post_norm: Whether nothing but a norm takes the result.
        call: Which call of the operation this is, from 0.
    """

    operation: Any
    kind: str
    skip: int
    operations: Sequence[Any]
    shortcut: Sequence[Any]
    source: Any
    holder: Any
    output: Any
    post_norm: bool
    call: int


class Graph:
    """The nodes of a Functional model in the order in which they are computed, with what each depends on.

    Args:
        model: The model.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        by_depth = model._nodes_by_depth
        self.nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
        self._index = {id(node): index for index, node in enumerate(self.nodes)}
        self._inputs = {id(tensor) for tensor in model.inputs}
        # One bit a node: what it depends on, by way of values.
        self._below: list[int] = []
        for node in self.nodes:
            below = 0
            if not type(node.operation).__name__.startswith(_VALUE_FREE):
                for parent in self._parents(node):
                    below |= self._below[parent] | (1 << parent)
            self._below.append(below)

    def merges(self) -> Iterator[Merge]:
        """Yields the residual connections in the order in which they are computed."""
        calls: dict[int, int] = {}
        for index, node in enumerate(self.nodes):
            kind = _MERGES.get(type(node.operation).__name__)
            tensors = node.input_tensors
            if kind is None or len(tensors) < 2 or index not in self._computed:
                continue
            call = calls.get(id(node.operation), 0)
            calls[id(node.operation)] = call + 1
            found = self._paths(kind, [self._producer(tensor) for tensor in tensors])
            if found is None:
                continue
            skip, source, ends = found
            shortcut = self._between(source, [self._producer(tensors[skip])])
            branch = self._between(source, ends)
            own = {id(operation) for operation in shortcut}
            yield Merge(
                operation=node.operation,
                kind=kind,
                skip=skip,
                operations=[operation for operation in branch if id(operation) not in own],
                shortcut=shortcut,
                source=self.nodes[source].output_tensors[0],
                holder=self.model,
                output=node.output_tensors[0],
                post_norm=self._only_normed(index),
                call=call,
            )

    @cached_property
    def _computed(self) -> set[int]:
        return {index for index, node in enumerate(self.nodes) if not node.is_input}

    @cached_property
    def _users(self) -> list[list[int]]:
        users: list[list[int]] = [[] for _ in self.nodes]
        for index, node in enumerate(self.nodes):
            for parent in set(self._parents(node)):
                users[parent].append(index)
        return users

    def _producer(self, tensor: Any) -> int:
        history = tensor._keras_history
        return self._index.get(id(history.operation._inbound_nodes[history.node_index]), -1)

    def _parents(self, node: Any) -> list[int]:
        return [parent for parent in map(self._producer, node.input_tensors) if parent >= 0]

    def _closed(self, index: int) -> int:
        return self._below[index] | (1 << index)

    def _paths(self, kind: str, producers: list[int]) -> tuple[int, int, list[int]] | None:
        """Returns which input is the skip path, the node that both start from, and where the branches end."""
        if min(producers) < 0:
            return None
        for skip, start in enumerate(producers):
            others = [end for i, end in enumerate(producers) if i != skip]
            reached = [end for end in others if self._below[end] >> start & 1]
            if reached:
                return skip, start, reached
        if kind != "add" or len(producers) != 2:
            return None
        common = self._closed(producers[0]) & self._closed(producers[1])
        if not common:
            return None
        source = common.bit_length() - 1
        costs: list[tuple[int, bool, int]] = []
        for producer in producers:
            path = self._between(source, [producer])
            # A shortcut that changes the shape: at most one linear map, a norm, a pool or a pad.
            plain = all(is_linear(operation) or "Pool" in type(operation).__name__ for operation in path)
            costs.append((sum(is_map(operation) for operation in path), not plain, len(path)))
        skip = 0 if costs[0] < costs[1] else 1
        maps, bent, _ = costs[skip]
        if bent or maps > 1 or costs[1 - skip][:2] <= (maps, False):
            return None
        return skip, source, [producers[1 - skip]]

    def _between(self, source: int, ends: list[int]) -> list[Any]:
        """Returns the operations that are computed from the source on the way to the ends, the ends among them."""
        wanted = 0
        for end in ends:
            wanted |= self._closed(end)
        found = [
            node.operation
            for index, node in enumerate(self.nodes)
            if wanted >> index & 1 and self._below[index] >> source & 1
        ]
        return distinct(found)

    def _only_normed(self, index: int) -> bool:
        users = self._users[index]
        return bool(users) and all(is_norm(self.nodes[user].operation) for user in users)
