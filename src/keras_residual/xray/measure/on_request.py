"""What quantities on request are given: the model, its blocks as functions, and what passes between them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual import _backend
from keras_residual._errors import unknown_name
from keras_residual._keras import Function
from keras_residual.residual.residual import Residual
from keras_residual.stacks.stack import ResidualStack
from keras_residual.stacks.topologies.single import Single
from keras_residual.xray.find.discover import ReportedBlock, Target
from keras_residual.xray.find.inside import Run
from keras_residual.xray.find.structure import distinct
from keras_residual.xray.measure.loss import FollowedLoss
from keras_residual.xray.measure.recorder import Recorder
from keras_residual.xray.quantities import by_request


def check_quantities(names: Sequence[str], y: Any) -> None:
    """Raises where a quantity is unknown, or needs targets that there are not.

    Args:
        names: Names of quantities.
        y: The targets as a tensor, a structure of tensors, or None.
    """
    known = by_request()
    for name in names:
        if name not in known:
            raise unknown_name("xray", "quantities", name, known)
    for name, quantity in known.items():
        if name in names and quantity.check is not None:
            quantity.check(name, y)


def costs_in_words(names: Sequence[str], blocks: int) -> str:
    """Returns what quantities cost for a model of so many blocks, a line for each.

    Args:
        names: Names of quantities on request.
        blocks: Number of blocks of the report.

    Example:
        >>> print(costs_in_words(["lesion", "loss_slice"], blocks=16))
        Passes of the model, beside one forward and one back for the X-ray itself:
          lesion: 17 forward
          loss_slice: 51 forward; the weights are kept once more
    """
    known, lines = by_request(), ["Passes of the model, beside one forward and one back for the X-ray itself:"]
    for name in dict.fromkeys(names):
        cost = known[name].cost
        lines += [] if cost is None else [f"  {name}: {cost.in_words(blocks)}"]
    return "\n".join(lines)


class RequestedLook:
    """A further look at a model that a program has measured, for the quantities that were asked for.

    Args:
        model: The model.
        recorder: What watches it.
        given: The batch, and as far as there are any the targets and the weights of the samples.
        loss: The loss.
        training: Whether the layers act as in training.
    """

    def __init__(
        self, model: Any, recorder: Recorder, given: tuple[Any, ...], loss: FollowedLoss, training: bool
    ) -> None:
        self.model = model
        self.given = given
        self.training = training
        self.places: list[ReportedBlock] = recorder.places
        """The places of the model, each once."""
        self.places_of_blocks: list[ReportedBlock] = [place for places in recorder.order for place in places]
        """The place of each block of the report."""
        self._recorder = recorder
        self._loss = loss
        self._features: list[np.ndarray | None] | None = None
        self._received: list[Any] = []
        self._runs: Mapping[int, Run] = {}

    def add(self, names: Sequence[str], blocks: Any, model: Any) -> None:
        """Measures quantities, and adds them to the entries of the blocks and to those of the whole.

        Args:
            names: Their names.
            blocks: The entries of the blocks.
            model: The quantities of the whole.
        """
        known = by_request()
        for name in dict.fromkeys(names):
            known[name].measure(self, blocks, model)

    def call(self, x: Any, *, training: bool) -> Any:
        """Returns what the model makes of inputs."""
        return self.model(x, **({"training": training} if self.model._call_has_training_arg else {}))

    def loss_at_inference(self, given: Any) -> Any:
        """Returns the loss of a batch, with the weights of the moment."""
        return self._loss(self.call(given[0], training=False), *given[1:])

    def losses_with(self, masks: np.ndarray) -> np.ndarray:
        """Returns the loss at inference for each row of numbers, by which the branches of the places are multiplied."""
        return np.asarray(_backend.compiled(self._losses_with, distinct(self.model.variables))((self.given, masks)))

    def _losses_with(self, arguments: Any) -> Any:
        given, masks = arguments

        def body(carry: Any, masks: Any, _: Any) -> Any:
            self._recorder.reset(lambda shape, dtype: ops.zeros(shape, dtype))
            (self._recorder.mask,) = masks
            try:
                with self._recorder.watching():
                    loss = self.loss_at_inference(given)
            finally:
                self._recorder.mask = None
            return carry, (loss,)

        _, (losses,) = _backend.scan(body, ops.zeros(()), (ops.convert_to_tensor(masks),))
        return losses

    def features(self) -> list[np.ndarray | None]:
        """Returns what each block hands on, as arrays."""
        self._keep()
        return self._features or []

    def each_block(self, blocks: Any) -> list[tuple[Any, ReportedBlock, BlockFunction | None, Any]]:
        """Returns for each block its entry, its place, the block as a function, and what it receives.

        Args:
            blocks: The entries of the blocks.
        """
        self._keep()
        functions = {}
        for target in self._recorder.targets:
            made = block_functions(target, self.training, self._runs)
            functions |= dict(zip(map(id, target.places), made, strict=True))
        each = zip(blocks, self.places_of_blocks, self._received, strict=True)
        # No gradient goes to tokens and other whole numbers.
        return [(block, place, functions[id(place)] if _is_float(x) else None, x) for block, place, x in each]

    def _keep(self) -> None:
        """Calls the model once, and keeps what each block receives and hands on."""
        if self._features is not None:
            return
        recorder = self._recorder
        recorder.reset(lambda shape, dtype: ops.zeros(shape, dtype))
        recorder.keep = True
        try:
            with keras.StatelessScope(), recorder.watching():
                self.call(self.given[0], training=self.training)
            seen = recorder.finished()
        finally:
            recorder.keep = False
        self._runs = recorder.runs
        self._features = []
        for places, numbers in zip(recorder.order, seen, strict=True):
            kept = numbers.get("kept")
            whole = places[0].stack is None
            received = [kept] if whole else [kept[i] for i in range(len(places))] if kept is not None else []
            self._received += received
            behind = [*received[1:], numbers["kept_last"]]
            self._features += [np.asarray(ops.convert_to_numpy(ops.cast(x, "float32"))) for x in behind]


def _is_float(x: Any) -> bool:
    return x is not None and keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype))


# --- Each block as a function ----------------------------------------------------------------------------------------

BlockFunction = Callable[[Any], Any]


def block_functions(target: Target, training: bool, runs: Mapping[int, Run]) -> list[BlockFunction | None]:
    """Returns a function of a tensor for each place of a target; None where there is no such function.

    There is none for a block of several streams, and for one whose branch depends on more than what the block receives.

    Args:
        target: What is watched.
        training: Whether the layers act as in training.
        runs: The run that each place in a layer of others was part of, by its identity.
    """
    operation = target.operation
    if isinstance(operation, ResidualStack):
        return _of_stack(operation, training)
    if target.calls:
        pairs = zip(target.places, target.merges, strict=True)
        return [_of_run(runs.get(id(place)), merge, training) for place, merge in pairs]
    if target.merges:
        return [_of_merge(merge, training) if not merge.shortcut else None for merge in target.merges]
    return [functools.partial(_call, operation, training)]


def _of_stack(stack: ResidualStack, training: bool) -> list[BlockFunction | None]:
    if not isinstance(stack.topology, Single):
        return [None] * (stack.depth * stack.per_block)
    unrolled = stack if stack.execution == "unrolled" else stack.with_execution("unrolled")
    functions: list[BlockFunction | None] = []
    for index, cell in enumerate(unrolled._blocks.cells):
        contexts = unrolled._contexts.of_block(index)
        for connection, context in zip(cell.connections, contexts, strict=True):
            told = {"depth_context": context} if isinstance(connection, Residual) else {}
            functions.append(functools.partial(_call, connection, training, **told))
    return functions


def _of_merge(merge: Any, training: bool) -> BlockFunction | None:
    try:
        graph = Function(merge.source, merge.output)
    except ValueError:  # the branch depends on another input of the model as well
        return None

    def apply(x: Any) -> Any:
        return graph._run_through_graph(x, operation_fn=lambda operation: functools.partial(_call, operation, training))

    return apply


def _of_run(run: Run | None, merge: Any, training: bool) -> BlockFunction | None:
    if run is None or merge.shortcut:
        return None
    return run.block_of(merge, lambda operation, *args, **kwargs: _call(operation, training, *args, **kwargs))


def _call(operation: Any, training: bool, /, *args: Any, **kwargs: Any) -> Any:
    if isinstance(operation, keras.Layer) and operation._call_has_training_arg:
        kwargs = {**kwargs, "training": training}
    return operation(*args, **kwargs)
