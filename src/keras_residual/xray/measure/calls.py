"""Which layers a call of a model goes through: the first that give weights to what goes in, and how it ends."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual.graph.nodes import is_functional, nodes_of
from keras_residual.stacks.stack import ResidualStack
from keras_residual.xray.find.replaced import instead_of
from keras_residual.xray.find.structure import activation_of, is_map, is_norm
from keras_residual.xray.measure.loss import loss_takes, squares_or_sizes
from keras_residual.xray.measure.recorder import Recorder
from keras_residual.xray.quantities.numerics import scaled_norm


class Called:
    """The layers of a model in the order in which they are called, which need not be that of its attributes.

    Args:
        model: The model.
        recorder: What records the same calls; calls that it makes to see what a layer consists of do not count.
    """

    def __init__(self, model: Any, recorder: Recorder) -> None:
        hidden = set(_within_programs(model))
        self._layers = [layer for layer in model._flatten_layers() if id(layer) not in hidden]
        self._recorder = recorder
        self._entries_of = entries_of(model)
        self._forget()

    def _forget(self) -> None:
        self.last: Any = None
        """The last layer that was called and called none itself."""
        self.entries: list[tuple[Any, tuple[int, ...]]] = []
        """The layers that are the first with weights on the way of inputs, and the indices of these."""
        self.entry_numbers: list[dict[str, Any]] = []
        """What each of them received."""
        self.normed: set[int] = set()
        """Identities of the layers that a norm follows at once."""
        self._last_map: Any = None
        self._before: Any = None
        self._looking_for: tuple[int, ...] | None = None
        self._within: Any = None
        self._seen: set[int] = set()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within the scope, each call of a layer is noted; those of an earlier one are forgotten."""
        self._forget()
        with ExitStack() as patched:
            for layer in self._layers:
                patched.enter_context(instead_of(layer, "call", partial(self._noting, layer)))
            yield

    def _noting(self, layer: Any, call: Any) -> Any:
        def watched(*args: Any, **kwargs: Any) -> Any:
            if self._recorder.tracing:
                return call(*args, **kwargs)
            self.last = None
            entered = self._begun(layer, args, kwargs)
            out = call(*args, **kwargs)
            if self.last is None:
                self.last = layer
            if is_map(layer):
                self._last_map = layer
            if entered or not layer._layers:
                self._before = layer
            if layer is self._within:
                self._within = self._looking_for = None
            return out

        return watched

    def _begun(self, layer: Any, args: Any, kwargs: Any) -> bool:
        """Notes that the call of a layer begins, and returns whether it is an entry that is looked for."""
        if is_norm(layer) and self._before is not None:
            self.normed.add(id(self._before))
        if self._within is None and id(layer) in self._entries_of and id(layer) not in self._seen:
            self._within, self._looking_for = layer, self._entries_of[id(layer)]
            self._seen.add(id(layer))
        inputs = self._looking_for
        if inputs is None or not (is_entry(layer) or is_embedding(layer)):
            return False
        self._looking_for = None
        given = next((x for x in keras.tree.flatten((args, kwargs)) if ops.is_tensor(x)), None)
        if given is None or not keras.backend.is_float_dtype(keras.backend.standardize_dtype(given.dtype)):
            return False
        x: Any = ops.cast(ops.stop_gradient(given), "float32")
        rms = scaled_norm(x) / math.prod(x.shape) ** 0.5
        self.entries.append((layer, inputs))
        self.entry_numbers.append({"rms": rms, "largest": ops.max(ops.abs(x))})
        return True

    def entry_facts(self) -> list[dict[str, Any]]:
        """Returns of each entry the name of its layer, the indices of its inputs, and whether a norm follows it."""
        return [
            {"layer": layer.name, "inputs": list(inputs), "normalised": id(layer) in self.normed}
            for layer, inputs in self.entries
        ]

    def head(self) -> list[keras.Variable]:
        """Returns the matrix of the last linear map that was called, if it is trained."""
        variables = self._last_map.trainable_variables if self._last_map is not None else []
        return [v for v in variables if len(v.shape) > 1][:1]


def _within_programs(model: Any) -> Iterator[int]:
    """Yields the identities of the layers of which no call is noted."""
    for stack in model._flatten_layers():
        if isinstance(stack, ResidualStack) and stack.runs_in_programs:
            yield from (id(part) for part in stack._flatten_layers(include_self=False))


def entries_of(model: Any) -> dict[int, tuple[int, ...]]:
    """Returns the operations in which inputs first meet weights, by identity, each with the indices of these inputs.

    What has no weights lets them pass, and so does a norm. Of a model that is no graph it is the model itself.

    Args:
        model: A built model or layer.
    """
    graph = getattr(model, "_functional", None) or model
    if not is_functional(graph):
        return {id(model): ()}
    reached = {id(tensor): {index} for index, tensor in enumerate(graph.inputs)}
    found: dict[int, set[int]] = {}
    for node in nodes_of(graph):
        inputs: set[int] = set().union(*(reached.get(id(tensor), set()) for tensor in node.input_tensors))
        if not inputs or node.is_input:
            continue
        operation = node.operation
        if isinstance(operation, keras.Layer) and operation.weights and not is_norm(operation):
            found.setdefault(id(operation), set()).update(inputs)
        else:
            for tensor in node.output_tensors:
                reached.setdefault(id(tensor), set()).update(inputs)
    return {operation: tuple(sorted(inputs)) for operation, inputs in found.items()}


def is_entry(layer: Any) -> bool:
    """Returns whether a layer multiplies what it receives by weights of its own."""
    if is_norm(layer) or is_embedding(layer):
        return False
    own = any(len(variable.shape) > 1 for variable in layer._trainable_variables)
    return own or is_map(layer) or isinstance(layer, keras.layers.RNN)


def is_embedding(layer: Any) -> bool:
    """Returns whether a layer looks up rows by whole numbers."""
    return isinstance(layer, keras.layers.Embedding)


def ending_numbers(outputs: Any, head: list[Any]) -> dict[str, Any]:
    """Returns the ends of the outputs' range, how far their sums are from 1, and the head's largest entry.

    Args:
        outputs: What the model returned; of anything but one tensor there are no numbers.
        head: The matrix of the last linear map, or nothing.
    """
    found: dict[str, Any] = {}
    if head:
        found["head"] = ops.max(ops.abs(ops.stop_gradient(head[0])))
    if hasattr(outputs, "shape") and len(outputs.shape) > 1:
        outputs = ops.cast(ops.stop_gradient(outputs), "float32")
        found |= {"lowest": ops.min(outputs), "highest": ops.max(outputs)}
        found["classes"] = ops.convert_to_tensor(outputs.shape[-1], "int32")
        total: Any = ops.sum(outputs, axis=-1)
        found["off_one"] = ops.max(ops.abs(total - 1.0))
        found["rms"] = ops.sqrt(ops.mean(ops.square(outputs)))
    return found


def ending_facts(last: Any, loss: Any, numbers: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns what the rules ask of a model's ending.

    Args:
        last: The last layer that was called.
        loss: The loss that was followed; None for none.
        numbers: What came of `ending_numbers`.
    """
    kind, takes = loss_takes(loss)
    return {
        "last_layer": last.name,
        "last_activation": activation_of(last),
        "cross_entropy": kind,
        "loss_takes": takes,
        "loss_is_distance": squares_or_sizes(loss),
        "classes": int(numbers["classes"]) if "classes" in numbers else None,
        "output_lowest": float(numbers["lowest"]) if "lowest" in numbers else None,
        "output_highest": float(numbers["highest"]) if "highest" in numbers else None,
        "output_off_one": float(numbers["off_one"]) if "off_one" in numbers else None,
        "output_rms": float(numbers["rms"]) if "rms" in numbers else None,
        "head_is_zero": "head" in numbers and float(numbers["head"]) == 0.0,
    }
