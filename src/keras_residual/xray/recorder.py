"""What is measured while a model is called: at each place a few numbers, and a probe for the gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
from keras import ops

from keras_residual.layers.residual import Residual
from keras_residual.stacks.observe import observe
from keras_residual.stacks.stack import ResidualStack
from keras_residual.stacks.topologies.reversible import ReversibleLink
from keras_residual.xray.discover import Target
from keras_residual.xray.graph import Merge
from keras_residual.xray.measures import Numbers, of_activation, of_connection, of_signal, total
from keras_residual.xray.place import Place
from keras_residual.xray.structure import (
    BOUNDED,
    RELU_LIKE,
    activation_of,
    channel_axis_of,
    distinct,
    leaves,
)

Probe = Callable[[Any, Any], Any]


class Recorder:
    """Watches the targets while the model is called within `watching`.

    Args:
        targets: What to watch.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        self.targets = targets
        self.keep = False
        """Whether what each connection receives and hands on is kept whole, beside the numbers."""
        self.mask: Any = None
        """One number a place, by which its branch is multiplied; None for all as they are."""
        self.places = [place for target in targets for place in target.places]
        self._numbered = {id(place): index for index, place in enumerate(self.places)}
        self.probe: Probe = lambda shape, dtype: ops.zeros(shape, dtype)
        self.reset(self.probe)

    def reset(self, probe: Probe) -> None:
        """Forgets what was seen, before the model is called; `probe(shape, dtype)` returns zeros."""
        self.probe = probe
        self.order: list[list[Place]] = []
        """The places of each entry: one, or all connections of a stack."""
        self.seen: list[Numbers] = []
        """What was measured in each entry: numbers, or vectors with the connections of a stack."""
        self.probes: list[tuple[str, int]] = []
        """For each probe what it is for, `"input"`, `"stream"` or `"rows"`, and the entry that it belongs to."""
        self.shapes: list[tuple[int, ...]] = []
        self._calls: dict[int, int] = {}
        self._activations: dict[int, list[Numbers]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within the scope, each call of a target or of an activation in one is recorded; afterwards all is as before.

        An attribute of the object hides the method of its class, so that nothing of the class, and no other model, is
        touched.
        """
        with ExitStack() as patched:
            for operation in self._watched_activations():
                patched.enter_context(_instead_of_call(operation, self._activation(operation)))
            for target in self.targets:
                patched.enter_context(_instead_of_call(target.operation, self._wrapped(target)))
            first = self.targets[0] if self.targets else None
            if first is not None and first.merges:
                patched.enter_context(_instead_of_call(*self._source_of(first.merges[0])))
            yield

    def _source_of(self, merge: Merge) -> tuple[Any, Callable[[Any], Any]]:
        """Returns what gives off the tensor from which the first connection starts, and its call with a probe."""
        operation = merge.source._keras_history.operation
        places = [index for index, tensor in enumerate(merge.holder.inputs) if tensor is merge.source]

        def from_operation(call: Any) -> Any:
            return lambda *args, **kwargs: self._first_of(call(*args, **kwargs))

        def from_input(call: Any) -> Any:
            def watched(inputs: Any, *args: Any, **kwargs: Any) -> Any:
                flat = keras.tree.flatten(inputs)
                flat[places[0]] = self._first(flat[places[0]])
                return call(keras.tree.pack_sequence_as(inputs, flat), *args, **kwargs)

            return watched

        return (merge.holder, from_input) if places else (operation, from_operation)

    def _first_of(self, out: Any) -> Any:
        return self._first(out) if hasattr(out, "shape") else out

    def _wrapped(self, target: Target) -> Callable[[Any], Any]:
        if isinstance(target.operation, ResidualStack):
            return lambda call: self._of_stack(target, call)
        if isinstance(target.operation, Residual):
            return lambda call: self._of_residual(target, call)
        return lambda call: self._of_merge(target, call) if target.merges else self._of_layer(target, call)

    # --- The kinds of targets ----------------------------------------------------------------------------------------

    def _of_residual(self, target: Target, call: Any) -> Any:
        layer = target.operation

        def watched(inputs: Any, training: bool | None = None, mask: Any = None, depth_context: Any = None) -> Any:
            inputs = self._first(inputs)
            prepared = layer.preactivated(inputs, training, mask)
            place = self._place(target)
            branch = self._masked(layer.branch_output(prepared, training, mask, depth_context), place)
            out = layer.join(prepared, branch, training, mask, depth_context)
            axis = channel_axis_of(layer.branch[-1], len(out.shape))
            return self._entry(place, inputs, branch, out, axis)

        return watched

    def _of_merge(self, target: Target, call: Any) -> Any:
        def watched(*args: Any, **kwargs: Any) -> Any:
            place = self._place(target)
            merge = target.merges[target.places.index(place)]
            flat = keras.tree.flatten((args, kwargs))
            tensors = [index for index, x in enumerate(flat) if hasattr(x, "shape")]
            for index in tensors[: merge.skip] + tensors[merge.skip + 1 :]:
                flat[index] = self._masked(flat[index], place)
            args, kwargs = keras.tree.pack_sequence_as((args, kwargs), flat)
            received = flat[tensors[merge.skip]]
            others = [flat[index] for index in tensors if index != tensors[merge.skip]]
            if merge.kind == "add":
                added = others[0]
                for other in others[1:]:
                    added = added + other
            else:
                added = (
                    others[0] if len(others) == 1 else ops.concatenate(others, getattr(target.operation, "axis", -1))
                )
            out = call(*args, **kwargs)
            return self._entry(place, received, added, out, channel_axis_of(target.operation, len(out.shape)))

        return watched

    def _masked(self, branch: Any, place: Place) -> Any:
        if self.mask is None:
            return branch
        return branch * ops.cast(self.mask[self._numbered[id(place)]], branch.dtype)

    def _block_mask(self, target: Target) -> Any:
        """Returns what switches off whole blocks of a stack: one of several connections takes the others with it."""
        if self.mask is None:
            return None
        first = self._numbered[id(target.places[0])]
        own = self.mask[first : first + len(target.places)]
        return ops.min(ops.reshape(own, (target.operation.depth, -1)), axis=1)

    def _of_layer(self, target: Target, call: Any) -> Any:
        def watched(*args: Any, **kwargs: Any) -> Any:
            if args and hasattr(args[0], "shape"):
                args = (self._first(args[0]), *args[1:])
            out = call(*args, **kwargs)
            if not hasattr(out, "shape"):
                return out
            received = args[0] if args and hasattr(args[0], "shape") else None
            if self.mask is not None and received is not None and tuple(out.shape) == tuple(received.shape):
                out = received + self._masked(out - ops.cast(received, out.dtype), target.places[0])
            return self._entry(
                self._place(target), received, None, out, channel_axis_of(target.operation, len(out.shape))
            )

        return watched

    def _of_stack(self, target: Target, call: Any) -> Any:
        stack = target.operation
        connection = stack._blocks.cells[0].connections[0]
        inside = [id(operation) for place in _running(target) for operation in leaves(place.operations)]

        def watched(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            inputs = self._first(inputs)
            axis = channel_axis_of(connection, len(inputs.shape))

            def measure(received: Any, added: Any) -> Numbers:
                found = of_connection(received, added, axis)
                kept = {"kept": received} if self.keep else {}
                return {**found, **kept, **self._drained(inside)}

            probe = self._probe_rows(stack, inputs, len(self.seen))
            with observe(stack, measure, probe=probe, block_mask=self._block_mask(target)) as seen:
                out = call(inputs, *args, **kwargs)
            self._record(target.places, dict(seen), out, axis)
            if probe is None:
                out = out + self._probe("stream", out, len(self.seen) - 1)
            return out

        return watched

    def _probe_rows(self, stack: Any, inputs: Any, entry: int) -> Any:
        """Returns a probe for each row of a stack behind each block; None where the rows grow with depth."""
        if not stack.topology.fixed_shape:
            return None
        rows = stack.topology.begin(inputs)
        links = stack._blocks.cells[0].links
        if links and isinstance(links[0], ReversibleLink):
            rows = links[0].enter(rows)
        probes = []
        for row in rows:
            probes.append(self.probe((stack.depth, *row.shape), keras.backend.standardize_dtype(row.dtype)))
            self.probes.append(("rows", entry))
        return tuple(probes)

    # --- What is recorded --------------------------------------------------------------------------------------------

    def _place(self, target: Target) -> Place:
        """Returns the place of this call; one more call than is known of fills the last again."""
        count = self._calls.get(id(target.operation), 0)
        self._calls[id(target.operation)] = count + 1
        return target.places[min(count, len(target.places) - 1)]

    def _first(self, x: Any) -> Any:
        """Returns the tensor with a probe, where it is what the first connection receives and can have a gradient."""
        if self.seen or any(kind == "input" for kind, _ in self.probes):
            return x
        return x + self._probe("input", x, 0) if keras.backend.is_float_dtype(_dtype(x)) else x

    def _probe(self, kind: str, x: Any, entry: int) -> Any:
        self.probes.append((kind, entry))
        return self.probe(tuple(x.shape), _dtype(x))

    def _entry(self, place: Place, received: Any, added: Any, out: Any, axis: int) -> Any:
        kept = {"kept": received} if self.keep and received is not None else {}
        self._record([place], {**of_connection(received, added, axis), **kept}, out, axis)
        return out + self._probe("stream", out, len(self.seen) - 1)

    def _record(self, places: list[Place], numbers: Numbers, out: Any, axis: int) -> None:
        if self.keep:
            numbers = {**numbers, "kept_last": out}
        self.order.append(places)
        self.shapes.append(tuple(out.shape))
        self.seen.append({**numbers, **{f"out_{name}": value for name, value in of_signal(out, axis).items()}})

    # --- Activations within the branches -----------------------------------------------------------------------------

    def _watched_activations(self) -> list[Any]:
        operations = [
            operation for target in self.targets for place in _running(target) for operation in leaves(place.operations)
        ]
        wanted = (*RELU_LIKE, *BOUNDED)
        return [operation for operation in distinct(operations) if activation_of(operation) in wanted]

    def _activation(self, operation: Any) -> Callable[[Any], Any]:
        def wrapped(call: Any) -> Any:
            def watched(*args: Any, **kwargs: Any) -> Any:
                out = call(*args, **kwargs)
                self._activations.setdefault(id(operation), []).append(of_activation(operation, out))
                return out

            return watched

        return wrapped

    def _drained(self, keys: list[int]) -> Numbers:
        """Returns the sums of what these activations counted since they were last asked."""
        return total([part for key in keys for part in self._activations.pop(key, [])])

    def finished(self) -> list[Numbers]:
        """Returns what was measured in each entry, once the model has been called."""
        entries = []
        for places, numbers in zip(self.order, self.seen, strict=True):
            if "dead" not in numbers:
                keys = [id(operation) for operation in leaves(places[0].operations)]
                numbers = {**numbers, **total([part for key in keys for part in self._activations.get(key, [])])}
            entries.append(numbers)
        return entries


def _running(target: Target) -> list[Place]:
    """Returns the places whose layers run: those of the one body of a scanned stack stand for every block."""
    stack = target.operation
    scanned = isinstance(stack, ResidualStack) and stack._blocks.scanned
    return target.places[: stack.per_block] if scanned else target.places


def _dtype(x: Any) -> str:
    return keras.backend.standardize_dtype(x.dtype)


@contextmanager
def _instead_of_call(operation: Any, wrapped: Callable[[Any], Any]) -> Iterator[None]:
    before = operation.__dict__.get("call")
    call = operation.call
    operation.__dict__["call"] = wrapped(call)
    try:
        yield
    finally:
        if before is None:
            del operation.__dict__["call"]
        else:
            operation.__dict__["call"] = before
