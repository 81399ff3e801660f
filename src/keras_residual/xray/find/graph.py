"""The residual connections of a graph: sums and concatenations of which one input reaches the other."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
from keras import ops

from keras_residual.graph.nodes import nodes_of
from keras_residual.xray.find.structure import distinct, is_linear, is_map, is_norm, variables_of

_MERGES = {"Add": "add", "AddMerge": "add", "Concatenate": "concatenate"}
_VALUE_FREE = ("PositionEmbedding", "Shape", "ZerosLike", "OnesLike", "FullLike")
"""Operations whose output depends on the shape of their input and not on what it holds."""


@dataclass(frozen=True, slots=True)
class MergeNode:
    """A sum or a concatenation that closes a residual connection.

    Args:
        operation: The layer or operation.
        kind: `"add"` or `"concatenate"`.
        skip: Index of the skip path among its tensors.
        operations: What is on the branch, from the place where the paths part.
        shortcut: What is on the skip path; empty for an identity.
        variables: The weights on both paths: those of the layers, and those that operations are given.
        learned: Whether anything on the branch holds numbers of its own: a weight, or a tensor made elsewhere.
        source: The symbolic tensor that both paths start from.
        holder: The model in whose graph it is, or the trace.
        output: The symbolic tensor that comes out.
        positions: Where its tensors are among the arguments, flattened.
        post_norm: Whether nothing but a norm takes the result.
        call: Which call of the operation this is, from 0.
        index: Index of its node.
        source_index: Index of the node that gives off the source.
    """

    operation: Any
    kind: str
    skip: int
    operations: Sequence[Any]
    shortcut: Sequence[Any]
    variables: Sequence[keras.Variable]
    learned: bool
    source: Any
    holder: Any
    output: Any
    positions: Sequence[int]
    post_norm: bool
    call: int
    index: int
    source_index: int


class NodeGraph:
    """Nodes in the order in which they are computed, with what each depends on.

    Args:
        nodes: Nodes as Keras has them.
        holder: What they are the graph of: a model or a trace.
        value_free: Identities of further operations whose output does not depend on what their input holds.
    """

    def __init__(self, nodes: Sequence[Any], holder: Any, value_free: Collection[int] = ()) -> None:
        self.nodes = nodes
        self.holder = holder
        self._producers: list[list[int]] = []
        # One bit a node: what it depends on, by way of values.
        self._below: list[int] = []
        made_by: dict[int, int] = {}
        for index, node in enumerate(nodes):
            self._producers.append([made_by.get(id(tensor), -1) for tensor in node.input_tensors])
            free = id(node.operation) in value_free or type(node.operation).__name__.startswith(_VALUE_FREE)
            below = 0
            for parent in () if free else self._parents(index):
                below |= self._below[parent] | (1 << parent)
            self._below.append(below)
            made_by |= {id(tensor): index for tensor in node.output_tensors}

    @classmethod
    def of_model(cls, model: Any, value_free: Collection[int] = ()) -> NodeGraph:
        """Returns the graph of a Functional model."""
        return cls(nodes_of(model), model, value_free)

    def merges(self) -> Iterator[MergeNode]:
        """Yields the residual connections in the order in which they are computed."""
        calls: dict[int, int] = {}
        for index, node in enumerate(self.nodes):
            kind = _MERGES.get(type(node.operation).__name__)
            producers = self._producers[index]
            if kind is None or len(producers) < 2 or node.is_input:
                continue
            call = calls.get(id(node.operation), 0)
            calls[id(node.operation)] = call + 1
            found = self._paths(kind, producers)
            if found is None:
                continue
            skip, source, ends = found
            shortcut = self._between(source, [producers[skip]])
            branch = _without(self._between(source, ends), shortcut)
            branch_operations, own = self._operations(branch), self._operations(shortcut)
            yield MergeNode(
                operation=node.operation,
                kind=kind,
                skip=skip,
                operations=[operation for operation in branch_operations if operation not in own],
                shortcut=own,
                variables=distinct([*variables_of([*branch_operations, *own]), *self._given([*branch, *shortcut])]),
                learned=bool(variables_of(branch_operations) or self._given(branch, tensors=True)),
                source=self.nodes[source].output_tensors[0],
                holder=self.holder,
                output=node.output_tensors[0],
                positions=[i for i, x in enumerate(_arguments(node)) if isinstance(x, keras.KerasTensor)],
                post_norm=self._only_normed(index),
                call=call,
                index=index,
                source_index=source,
            )

    def depends_on_values(self, tensors: Sequence[Any]) -> bool:
        """Returns whether any of the tensors depends on what an input holds.

        Args:
            tensors: Symbolic tensors.
        """
        inputs = sum(1 << index for index, node in enumerate(self.nodes) if node.is_input)
        wanted = {id(tensor) for tensor in tensors}
        ends = (i for i, node in enumerate(self.nodes) if any(id(t) in wanted for t in node.output_tensors))
        return any(self._closed(end) & inputs for end in ends)

    @cached_property
    def _users(self) -> list[list[int]]:
        users: list[list[int]] = [[] for _ in self.nodes]
        for index in range(len(self.nodes)):
            for parent in set(self._parents(index)):
                users[parent].append(index)
        return users

    def _parents(self, index: int) -> list[int]:
        return [parent for parent in self._producers[index] if parent >= 0]

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
            path = self._operations(self._between(source, [producer]))
            # A shortcut that changes the shape: at most one linear map, a norm, a pool or a pad.
            plain = all(is_linear(operation) or "Pool" in type(operation).__name__ for operation in path)
            costs.append((sum(is_map(operation) for operation in path), not plain, len(path)))
        skip = 0 if costs[0] < costs[1] else 1
        maps, bent, _ = costs[skip]
        if bent or maps > 1 or costs[1 - skip][:2] <= (maps, False):
            return None
        return skip, source, [producers[1 - skip]]

    def _between(self, source: int, ends: list[int]) -> list[int]:
        """Returns the nodes that are computed from the source on the way to the ends, the ends among them."""
        wanted = 0
        for end in ends:
            wanted |= self._closed(end)
        return [i for i in range(len(self.nodes)) if wanted >> i & 1 and self._below[i] >> source & 1]

    def _operations(self, indices: Sequence[int]) -> list[Any]:
        return distinct(self.nodes[index].operation for index in indices)

    def _given(self, indices: Sequence[int], *, tensors: bool = False) -> list[Any]:
        """Returns the variables that nodes are given, and if asked for tensors that no node made."""
        found = []
        for index in indices:
            for value in _arguments(self.nodes[index]):
                held = tensors and ops.is_tensor(value) and len(value.shape) > 0
                if held or isinstance(value, keras.Variable):
                    found.append(value)
        return found

    def _only_normed(self, index: int) -> bool:
        users = self._users[index]
        return bool(users) and all(is_norm(self.nodes[user].operation) for user in users)


def _arguments(node: Any) -> list[Any]:
    return keras.tree.flatten((node.arguments.args, node.arguments.kwargs))


def _without(indices: Sequence[int], others: Sequence[int]) -> list[int]:
    left_out = set(others)
    return [index for index in indices if index not in left_out]
