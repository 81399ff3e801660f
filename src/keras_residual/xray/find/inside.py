"""Connections within the `call` of layers that are neither Keras's nor this library's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual import _backend
from keras_residual._keras import get_keras_mask, set_keras_mask
from keras_residual.residual.residual import Residual
from keras_residual.stacks.stack import ResidualStack
from keras_residual.xray.find.graph import MergeNode, NodeGraph
from keras_residual.xray.find.replaced import instead_of, leaving_untouched, without_recomputation
from keras_residual.xray.find.structure import CLOSED
from keras_residual.xray.find.trace import Trace, traced

_KNOWN = ("keras.", "keras_residual.")
_CLOSED = (*CLOSED, Residual, ResidualStack)


@dataclass(frozen=True, slots=True)
class TracedCall:
    """One call of a layer in which connections were found.

    Args:
        trace: Its graph.
        merges: The connections, in the order in which they are computed.
    """

    trace: Trace
    merges: Sequence[MergeNode]


@dataclass(frozen=True, slots=True)
class Insides:
    """What was found within the layers of a model.

    Args:
        calls: The calls of each layer with connections, by its identity.
        value_free: Identities of the layers whose output does not depend on what their input holds.
    """

    calls: dict[int, list[TracedCall]] = field(default_factory=dict)
    value_free: Collection[int] = ()


def look_inside(model: keras.Layer, x: Any, training: bool) -> Insides:
    """Calls a model once, and draws the graph of each call of a layer whose code is of others.

    A layer is left closed, as one function, where one of its calls is no graph, or is one that gives other numbers than
    the call itself.

    Args:
        model: A built model or layer.
        x: A batch.
        training: Whether the layers act as in training.
    """
    layers = list({id(layer): layer for layer in _of_others(model)}.values())
    if not layers:
        return Insides()
    look = _Traces()
    arguments = {"training": training} if model._call_has_training_arg else {}
    with leaving_untouched(model), without_recomputation(model), ExitStack() as patched:
        for layer in layers:
            patched.enter_context(instead_of(layer, "call", lambda call, layer=layer: look.watched(layer, call)))
        with keras.StatelessScope():
            model(x, **arguments)
    return look.finished()


def _of_others(layer: Any) -> Iterator[keras.Layer]:
    if isinstance(layer, _CLOSED):
        return
    if not type(layer).call.__module__.startswith(_KNOWN):
        yield layer
    for part in layer._layers:
        yield from _of_others(part)


class _Traces:
    """The traces that were drawn, by layer; None in the place of one that is not to be used."""

    def __init__(self) -> None:
        self.traces: dict[int, list[Trace | None]] = {}
        self._alone = False

    def watched(self, layer: keras.Layer, call: Any) -> Any:
        def watch(*args: Any, **kwargs: Any) -> Any:
            if not self._alone:
                with self._leaving_others_alone():
                    self.traces.setdefault(id(layer), []).append(_trustworthy(layer, call, args, kwargs))
            return call(*args, **kwargs)

        return watch

    @contextmanager
    def _leaving_others_alone(self) -> Iterator[None]:
        self._alone = True
        try:
            yield
        finally:
            self._alone = False

    def finished(self) -> Insides:
        """Returns the connections in all that was seen."""
        value_free = {
            identity
            for identity, traces in self.traces.items()
            if all(trace is not None and not _depends_on_values(trace) for trace in traces)
        }
        found = {}
        for identity, traces in self.traces.items():
            calls = [TracedCall(trace, _merges(trace, value_free)) for trace in traces if trace is not None]
            if len(calls) == len(traces) and any(call.merges for call in calls):
                found[identity] = calls
        return Insides(found, value_free)


def _merges(trace: Trace, value_free: Collection[int] = ()) -> list[MergeNode]:
    """Returns the connections with something learned on the branch: formulas such as GELU's have sums too."""
    return [merge for merge in NodeGraph(trace.nodes, trace, value_free).merges() if merge.learned]


def _depends_on_values(trace: Trace) -> bool:
    outputs = [x for x in keras.tree.flatten(trace.outputs) if isinstance(x, keras.KerasTensor)]
    return NodeGraph(trace.nodes, trace).depends_on_values(outputs)


def _trustworthy(layer: keras.Layer, call: Any, args: Any, kwargs: Any) -> Trace | None:
    """Returns the graph of a call, or None where there is none, or where it does not give what the call gives."""
    found = traced(layer, call, args, kwargs)
    if found is None:
        return None
    trace, values = found
    if not _merges(trace):  # it will not be run in the place of the call
        return trace
    try:
        with _same_start(layer, values.values()):
            expected = call(*args, **kwargs)
        with _same_start(layer, values.values()):
            outputs, _ = trace.run(values, lambda index, args, kwargs: trace.nodes[index].operation(*args, **kwargs))
        return trace if _alike(expected, outputs) else None
    except Exception:  # within a loop of the backend's, for one, where numbers cannot be looked at
        return None


@contextmanager
def _same_start(layer: keras.Layer, tensors: Iterable[Any]) -> Iterator[None]:
    """Lets variables, generators of random numbers, and masks of tensors come out of the scope as they went in."""
    values = [(variable, variable.value) for variable in layer.variables]
    masks = [(tensor, get_keras_mask(tensor)) for tensor in tensors]
    with _backend.keeping_random_state(), keras.StatelessScope(state_mapping=values):
        try:
            yield
        finally:
            for tensor, mask in masks:
                set_keras_mask(tensor, mask)


def _alike(expected: Any, outputs: Any) -> bool:
    keras.tree.assert_same_structure(expected, outputs)
    pairs = zip(keras.tree.flatten(expected), keras.tree.flatten(outputs), strict=True)
    return all(_close(one, other) for one, other in pairs)


def _close(one: Any, other: Any) -> bool:
    if not ops.is_tensor(one) or not ops.is_tensor(other):
        return one is other or one == other
    one, other = (np.asarray(ops.convert_to_numpy(ops.cast(x, "float32"))) for x in (one, other))
    finite = np.abs(one[np.isfinite(one)])
    size = float(finite.max()) if finite.size else 0.0
    return one.shape == other.shape and np.allclose(one, other, rtol=1e-3, atol=1e-3 * size, equal_nan=True)


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
