"""A call of a layer run operation by operation, so that the connections in it can be watched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from keras_residual.xray.finding.graph import MergeNode
from keras_residual.xray.finding.inside import TracedCall
from keras_residual.xray.finding.trace import Trace


@dataclass(frozen=True, slots=True)
class Run:
    """What is left of a call that was run.

    Args:
        trace: Its graph.
        values: The value of each symbolic tensor, by its identity.
    """

    trace: Trace
    values: Mapping[int, Any]

    def block_of(self, merge: MergeNode, apply: Callable[..., Any]) -> Callable[[Any], Any]:
        """Returns what a connection makes of what it receives, with all else that it depends on as it was.

        Args:
            merge: The connection.
            apply: `(operation, *args, **kwargs)`, which calls an operation.
        """
        nodes = self.trace.nodes
        source, output = (nodes[index].output_tensors[0] for index in (merge.source_index, merge.index))
        return self.trace.between(
            source,
            output,
            self.values,
            lambda index, args, kwargs: apply(nodes[index].operation, *args, **kwargs),
        )


def replay(
    known: TracedCall,
    trace: Trace,
    values: Mapping[int, Any],
    *,
    merged: Callable[..., Any],
    first: Callable[[Any], Any],
    counted: Callable[[Any, Any], None],
) -> tuple[Any, Run]:
    """Returns what a call returns, and the run.

    Args:
        known: The call as it was seen before.
        trace: Its graph as of now, which fits it.
        values: The values of the tensors that the call is given, by the identity of the symbolic tensors.
        merged: `(position, operation, args, kwargs)`, which computes the connection of that position.
        first: What is made of the tensor from which the first connection starts.
        counted: `(operation, output)`, called for all else, with the operation as it was seen before.
    """
    positions = {merge.index: position for position, merge in enumerate(known.merges)}
    source = known.merges[0].source_index if known.merges else None

    def apply(index: int, args: Any, kwargs: Any) -> Any:
        operation = trace.nodes[index].operation
        if index in positions:
            out = merged(positions[index], operation, args, kwargs)
        else:
            out = operation(*args, **kwargs)
            counted(known.trace.nodes[index].operation, out)
        return first(out) if index == source else out

    if source is not None and trace.nodes[source].is_input:
        given = id(trace.nodes[source].output_tensors[0])
        values = {**values, given: first(values[given])}
    outputs, everything = trace.run(values, apply)
    return outputs, Run(trace, everything)
