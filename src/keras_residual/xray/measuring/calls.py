"""Which layers a call of a model goes through: the last one, and the first that give weights to what goes in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import keras
from keras import ops

from keras_residual.stacks.stack import ResidualStack
from keras_residual.xray.finding.entries import entries_of, is_embedding, is_entry
from keras_residual.xray.finding.patched import instead_of
from keras_residual.xray.finding.structure import is_map, is_norm
from keras_residual.xray.measuring.recorder import Recorder
from keras_residual.xray.quantities.scaled_norm import scaled_norm


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
