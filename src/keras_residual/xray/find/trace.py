"""The call of a layer as a graph of Keras's operations, found by calling it once with symbolic tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_residual._keras import get_keras_mask, set_keras_mask
from keras_residual.graph.nodes import nodes_behind
from keras_residual.xray.find.replaced import leaving_untouched, operators_that_defer

Apply = Callable[[int, Any, Any], Any]
"""`(index of the node, args, kwargs) -> what the operation of the node makes of them`."""


@dataclass(frozen=True, slots=True)
class EntryNode:
    """The node of a tensor that a call is given: a mask of an argument is one as the argument is.

    Args:
        output_tensors: The symbolic tensor, alone.
    """

    output_tensors: Sequence[Any]
    operation: None = None
    input_tensors: Sequence[Any] = ()
    is_input: bool = True


class Trace:
    """The operations of one call, in the order in which they are computed.

    Args:
        nodes: The entries and Keras's nodes.
        outputs: What the call returns, with symbolic tensors.
    """

    def __init__(self, nodes: Sequence[Any], outputs: Any) -> None:
        self.nodes = nodes
        self.outputs = outputs

    def fits(self, other: Trace) -> bool:
        """Returns whether another call consists of the same operations in the same order."""
        kinds, others = ([type(node.operation) for node in trace.nodes] for trace in (self, other))
        return kinds == others

    def run(self, values: Mapping[int, Any], apply: Apply) -> tuple[Any, dict[int, Any]]:
        """Returns what the call returns, and the value of each symbolic tensor by its identity.

        Args:
            values: The values of the tensors that the call is given, by the identity of the symbolic tensors.
            apply: What computes a node.
        """
        known = self._computed(range(len(self.nodes)), values, apply)
        outputs = keras.tree.map_structure(
            lambda x: known[id(x)] if isinstance(x, keras.KerasTensor) else x, self.outputs
        )
        return outputs, known

    def between(self, source: Any, output: Any, known: Mapping[int, Any], apply: Apply) -> Callable[[Any], Any]:
        """Returns the function from one tensor of the call to another; what else it depends on stays as it was.

        Args:
            source: The symbolic tensor of its argument.
            output: The symbolic tensor of its result.
            known: The values of a run.
            apply: What computes a node.
        """
        moved = {id(source)}
        inside = []
        for index, node in enumerate(self.nodes):
            if any(id(tensor) in moved for tensor in node.input_tensors):
                inside.append(index)
                moved |= {id(tensor) for tensor in node.output_tensors}
        inside = self._leading_to(output, inside)
        fixed = {
            id(tensor): known[id(tensor)]
            for index in inside
            for tensor in self.nodes[index].input_tensors
            if id(tensor) not in moved
        }
        return lambda x: self._computed(inside, {**fixed, id(source): x}, apply)[id(output)]

    def _leading_to(self, output: Any, indices: Sequence[int]) -> list[int]:
        wanted, kept = {id(output)}, []
        for index in reversed(indices):
            node = self.nodes[index]
            if any(id(tensor) in wanted for tensor in node.output_tensors):
                kept.append(index)
                wanted |= {id(tensor) for tensor in node.input_tensors}
        return kept[::-1]

    def _computed(self, indices: Iterable[int], values: Mapping[int, Any], apply: Apply) -> dict[int, Any]:
        known = dict(values)
        for index in indices:
            node = self.nodes[index]
            if not node.is_input:
                args, kwargs = node.arguments.fill_in(known)
                made = keras.tree.flatten(apply(index, args, kwargs))
                known |= {id(tensor): value for tensor, value in zip(node.output_tensors, made, strict=True)}
        return known


def traced(layer: keras.Layer, call: Any, args: Any, kwargs: Any) -> tuple[Trace, dict[int, Any]] | None:
    """Returns the graph of a call with the values that it is given, or None for a call that is no graph.

    It is none where Python looks at values, where a function of a backend is called, and where a symbolic tensor cannot
    be had: a call that draws noise, or notes a loss.

    Args:
        layer: The layer.
        call: Its method, as it would be called.
        args: Arguments of the call.
        kwargs: Further arguments.
    """
    symbols: dict[int, Any] = {}
    values: dict[int, Any] = {}

    def symbol(x: Any) -> Any:
        if not ops.is_tensor(x):
            return x
        if id(x) not in symbols:
            made = symbols[id(x)] = keras.KerasTensor(tuple(x.shape), dtype=keras.backend.standardize_dtype(x.dtype))
            values[id(made)] = x
            mask = get_keras_mask(x)
            if mask is not None:
                set_keras_mask(made, symbol(mask))
        return symbols[id(x)]

    # Whatever goes wrong, in code of others called with what it may not have been written for: no graph.
    try:
        with leaving_untouched(layer), operators_that_defer():
            symbolic: Any = keras.tree.map_structure(symbol, (args, kwargs))
            args, kwargs = symbolic
            outputs = call(*args, **kwargs)
            made = [x for x in keras.tree.flatten(outputs) if isinstance(x, keras.KerasTensor)]
            entries = {id(tensor): EntryNode([tensor]) for tensor in symbols.values()}
            return Trace(nodes_behind(made, entries), outputs), values
    except Exception:
        return None
