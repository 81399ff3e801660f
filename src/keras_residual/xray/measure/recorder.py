"""What is measured while a model is called: at each place a few numbers, and a probe for the gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import keras
from keras import ops

from keras_residual._keras import get_keras_mask, set_keras_mask
from keras_residual.residual.residual import Residual
from keras_residual.stacks.observation import observe
from keras_residual.stacks.stack import ResidualStack
from keras_residual.stacks.topologies.reversible import ReversibleLink
from keras_residual.xray.find.discover import ReportedBlock, Target
from keras_residual.xray.find.graph import MergeNode
from keras_residual.xray.find.inside import Run, replay
from keras_residual.xray.find.replaced import instead_of, without_recomputation
from keras_residual.xray.find.structure import (
    activation_of,
    called_once,
    channel_axis_of,
    distinct,
    leaves,
)
from keras_residual.xray.find.trace import traced
from keras_residual.xray.measure.numbers import (
    Numbers,
    of_activation,
    of_connection,
    of_signal,
    total,
    watched_activations,
)
from keras_residual.xray.measure.streams import probing_rows, watching_streams

Probe = Callable[[Any, Any], Any]

_GATED = (keras.layers.LSTMCell, keras.layers.GRUCell, keras.layers.StackedRNNCells)


class Recorder:
    """Watches the targets while the model is called within `watching`.

    Args:
        targets: What to watch.
        model: The model that they are part of.
    """

    def __init__(self, targets: Sequence[Target], model: keras.Layer) -> None:
        self.targets = targets
        self.model = model
        self.keep = False
        """Whether what each connection receives and hands on is kept whole, beside the numbers."""
        self.mask: Any = None
        """One number a place, by which its branch is multiplied; None for all as they are."""
        self.places = [place for target in targets for place in target.places]
        self.tracing = False
        """Whether layers are called to see what they consist of, with tensors that have no values."""
        self._numbered = {id(place): index for index, place in enumerate(self.places)}
        self.probe: Probe = lambda shape, dtype: ops.zeros(shape, dtype)
        self.reset(self.probe)

    def reset(self, probe: Probe) -> None:
        """Forgets what was seen, before the model is called; `probe(shape, dtype)` returns zeros."""
        self.probe = probe
        self.order: list[list[ReportedBlock]] = []
        """The places of each entry: one, or all connections of a stack."""
        self.seen: list[Numbers] = []
        """What was measured in each entry: numbers, or vectors with the connections of a stack."""
        self.probes: list[tuple[str, int]] = []
        """For each probe what it is for, `"input"`, `"stream"`, `"rows"` or `"unused"`, and its entry."""
        self.shapes: list[tuple[int, ...]] = []
        self.runs: dict[int, Run] = {}
        """The run that each place in a layer of others was part of, where all is kept."""
        self._calls: dict[int, int] = {}
        self._activations: dict[int, list[Numbers]] = {}

    def forget(self) -> None:
        """Drops the tensors of the last call; what they were taken of stays known."""
        self.probe = lambda shape, dtype: ops.zeros(shape, dtype)
        self.seen = []
        self.runs = {}
        self._activations = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within the scope, each call of a target or of an activation in one is seen; afterwards all is as before."""
        with ExitStack() as patched:
            patched.enter_context(without_recomputation(self.model))
            for operation in self._watched_activations():
                patched.enter_context(self._instead_of_call(operation, self._activation(operation)))
            for target in self.targets:
                patched.enter_context(self._instead_of_call(target.operation, self._wrapped(target)))
            first = self.targets[0] if self.targets else None
            if first is not None and first.merges and not first.calls:
                patched.enter_context(self._instead_of_call(*self._source_of(first.merges[0])))
            yield

    def _instead_of_call(self, operation: Any, wrapped: Callable[[Any], Any]) -> AbstractContextManager[None]:
        def of(call: Any) -> Any:
            watched = wrapped(call)
            return lambda *args, **kwargs: (call if self.tracing else watched)(*args, **kwargs)

        return instead_of(operation, "call", of)

    def _source_of(self, merge: MergeNode) -> tuple[Any, Callable[[Any], Any]]:
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
        if target.calls:
            return lambda call: self._of_inside(target, call)
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
            return self._merged(place, target.merges[target.places.index(place)], call, args, kwargs)

        return watched

    def _merged(self, place: ReportedBlock, merge: MergeNode, call: Any, args: Any, kwargs: Any) -> Any:
        flat = keras.tree.flatten((args, kwargs))
        branches = [position for index, position in enumerate(merge.positions) if index != merge.skip]
        for position in branches:
            flat[position] = self._masked(flat[position], place)
        args, kwargs = keras.tree.pack_sequence_as((args, kwargs), flat)
        added = flat[branches[0]]
        if merge.kind == "add":
            for position in branches[1:]:
                added = added + flat[position]
        elif len(branches) > 1:
            added = ops.concatenate([flat[i] for i in branches], getattr(merge.operation, "axis", -1))
        out = call(*args, **kwargs)
        axis = channel_axis_of(merge.operation, len(out.shape))
        return self._entry(place, flat[merge.positions[merge.skip]], added, out, axis)

    def _of_inside(self, target: Target, call: Any) -> Any:
        firsts = [sum(len(before.merges) for before in target.calls[:number]) for number in range(len(target.calls))]

        def watched(*args: Any, **kwargs: Any) -> Any:
            number = self._number(target, len(target.calls))
            known, places = target.calls[number], target.places[firsts[number] :]
            with self._blind():
                found = traced(target.operation, call, args, kwargs)
            if found is None or not found[0].fits(known.trace):
                return call(*args, **kwargs)

            def merged(position: int, operation: Any, args: Any, kwargs: Any) -> Any:
                return self._merged(places[position], known.merges[position], operation, args, kwargs)

            out, run = replay(known, *found, merged=merged, first=self._first_of, counted=self._counted)
            if self.keep:
                self.runs |= {id(place): run for place in places[: len(known.merges)]}
            return out

        return watched

    @contextmanager
    def _blind(self) -> Iterator[None]:
        """Within the scope, calls of layers are not recorded: they are made to see what a layer consists of."""
        self.tracing = True
        try:
            yield
        finally:
            self.tracing = False

    def _masked(self, branch: Any, place: ReportedBlock) -> Any:
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
                return {**found, **kept, **streams.drained(), **self._drained(inside)}

            probe, entry = self._probe_rows(stack, inputs, len(self.seen)), len(self.probes)
            written = self._probe_written(stack, inputs, len(self.seen))
            with watching_streams(stack) as streams, probing_rows(stack, written) as rows:
                with observe(stack, measure, probe=probe, block_mask=self._block_mask(target)) as seen:
                    out = call(inputs, *args, **kwargs)
                found = streams.finished(dict(seen))
            self._record(target.places, found, out, axis)
            if not rows.all_reached(stack.depth):
                self.probes[entry], written = ("unused", len(self.seen) - 1), None
            if probe is None and written is None:
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

    def _probe_written(self, stack: Any, inputs: Any, entry: int) -> Any:
        """Returns a probe for what each block writes, in a stack whose rows grow with depth; None for other stacks.

        Nor is there one where activations are recomputed: the gradient of what is no argument of the block may get
        lost on the way. The gradient is then that behind the last block alone.
        """
        if stack.topology.fixed_shape or stack.remat:
            return None
        row = stack.topology.begin(inputs)[0]
        self.probes.append(("rows", entry))
        return self.probe((stack.depth, *row.shape), _dtype(row))

    def ended(self, outputs: Any) -> Any:
        """Returns the outputs of the model, each with a probe where it can have a gradient.

        TensorFlow computes a cross-entropy from the logits that a softmax remembers, and forgets them with the tensor.
        """

        def probed(x: Any) -> Any:
            floats = hasattr(x, "dtype") and keras.backend.is_float_dtype(_dtype(x))
            return self._probed("output", x, 0) if floats and not hasattr(x, "_keras_logits") else x

        return keras.tree.map_structure(probed, outputs)

    def is_recurrent(self, kind: str, entry: int) -> bool:
        """Returns whether what a probe was added to goes into a layer that hands it on from step to step."""
        entry += kind == "stream"
        if kind not in ("input", "stream") or entry >= len(self.order):
            return False
        operation = self.order[entry][0].operations[0]
        if not isinstance(operation, keras.layers.RNN) or operation.return_sequences:
            return False
        return not isinstance(getattr(operation, "cell", None), _GATED)  # gates may learn to keep what they are told to

    # --- What is recorded --------------------------------------------------------------------------------------------

    def _place(self, target: Target) -> ReportedBlock:
        """Returns the place of this call; one more call than is known of fills the last again."""
        return target.places[self._number(target, len(target.places))]

    def _number(self, target: Target, known: int) -> int:
        count = self._calls.get(id(target.operation), 0)
        self._calls[id(target.operation)] = count + 1
        return min(count, known - 1)

    def _first(self, x: Any) -> Any:
        """Returns the tensor with a probe, where it is what the first connection receives and can have a gradient."""
        if self.seen or any(kind == "input" for kind, _ in self.probes):
            return x
        return self._probed("input", x, 0) if keras.backend.is_float_dtype(_dtype(x)) else x

    def _probe(self, kind: str, x: Any, entry: int) -> Any:
        self.probes.append((kind, entry))
        return self.probe(tuple(x.shape), _dtype(x))

    def _probed(self, kind: str, x: Any, entry: int) -> Any:
        out, mask = x + self._probe(kind, x, entry), get_keras_mask(x)
        if mask is not None:
            set_keras_mask(out, mask)
        return out

    def _entry(self, place: ReportedBlock, received: Any, added: Any, out: Any, axis: int) -> Any:
        kept = {"kept": received} if self.keep and received is not None else {}
        self._record([place], {**of_connection(received, added, axis), **kept}, out, axis)
        return self._probed("stream", out, len(self.seen) - 1)

    def _record(self, places: list[ReportedBlock], numbers: Numbers, out: Any, axis: int) -> None:
        if self.keep:
            numbers = {**numbers, "kept_last": out}
        self.order.append(places)
        self.shapes.append(tuple(out.shape))
        self.seen.append({**numbers, **{f"out_{name}": value for name, value in of_signal(out, axis).items()}})

    # --- Activations within the branches -----------------------------------------------------------------------------

    def _watched_activations(self) -> list[Any]:
        operations = [
            operation
            for target in self.targets
            for place in _running(target)
            for operation in called_once(place.operations)
        ]
        watched = watched_activations()
        return [operation for operation in distinct(operations) if activation_of(operation) in watched]

    def _activation(self, operation: Any) -> Callable[[Any], Any]:
        def wrapped(call: Any) -> Any:
            def watched(*args: Any, **kwargs: Any) -> Any:
                out = call(*args, **kwargs)
                self._activations.setdefault(id(operation), []).append(of_activation(operation, out))
                return out

            return watched

        return wrapped

    def _counted(self, operation: Any, out: Any) -> None:
        """Counts in what an operation gave that is no layer: layers are watched one by one."""
        if not isinstance(operation, keras.Layer) and activation_of(operation) in watched_activations():
            self._activations.setdefault(id(operation), []).append(of_activation(operation, out))

    def _drained(self, keys: list[int]) -> Numbers:
        """Returns the sums of what these activations counted since they were last asked."""
        return total([part for key in keys for part in self._activations.pop(key, [])])

    def finished(self) -> list[Numbers]:
        """Returns what was measured in each entry, once the model has been called."""
        entries = []
        for places, numbers in zip(self.order, self.seen, strict=True):
            if not total([]).keys() <= numbers.keys():
                keys = [id(operation) for operation in leaves(places[0].operations)]
                numbers = {**numbers, **total([part for key in keys for part in self._activations.get(key, [])])}
            entries.append(numbers)
        return entries


def _running(target: Target) -> list[ReportedBlock]:
    """Returns the places whose layers run: those of the one body of a scanned stack stand for every block."""
    stack = target.operation
    scanned = isinstance(stack, ResidualStack) and stack.execution == "scan"
    return target.places[: stack.per_block] if scanned else target.places


def _dtype(x: Any) -> str:
    return keras.backend.standardize_dtype(x.dtype)
