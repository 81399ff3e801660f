"""The quantities that are measured on request, each at a cost of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual import _backend
from keras_residual._errors import bad_argument, unknown_name
from keras_residual._keras import Function
from keras_residual.residual.residual import Residual
from keras_residual.stacks.stack import ResidualStack
from keras_residual.stacks.topologies.single import Single
from keras_residual.xray.find.discover import ReportedBlock, Target
from keras_residual.xray.find.inside import Run
from keras_residual.xray.find.structure import distinct
from keras_residual.xray.measure.loss import FollowedLoss, random_direction
from keras_residual.xray.measure.recorder import Recorder
from keras_residual.xray.measure.slices import losses_around, random_direction_of, sharpness_of
from keras_residual.xray.quantities.chi import chi
from keras_residual.xray.quantities.cka import gram
from keras_residual.xray.quantities.early_exit import probe_accuracy
from keras_residual.xray.quantities.lesion import lesion_effects
from keras_residual.xray.quantities.loss_slice import curvature, slice_points, surface_points
from keras_residual.xray.quantities.path_lengths import effective_depth, path_lengths
from keras_residual.xray.quantities.shattering import curve, gradient_autocorrelation
from keras_residual.xray.quantities.singular_value import largest_singular_value
from keras_residual.xray.report import XrayReport

MOST_CLASSES = 10_000
"""Whole numbers above this are taken for no labels."""


class MeasuringRequest:
    """Measures what was asked for, and adds it to a report.

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
        self.recorder = recorder
        self.given = given
        self.loss = loss
        self.training = training
        self.places: list[ReportedBlock] = [place for places in recorder.order for place in places]
        self._features: list[np.ndarray | None] | None = None
        self._received: list[Any] = []
        self._runs: Mapping[int, Run] = {}

    def add(self, names: Sequence[str], report: XrayReport) -> None:
        """Adds the quantities to the blocks and to the whole of a report."""
        for name in dict.fromkeys(names):
            REQUESTED[name](self, report.blocks, report.model)

    # --- Block by block -----------------------------------------------------------------------------------------------

    def chi(self, blocks: Any, model: Any) -> None:
        """Adds `chi` and `branch_gain` to each block."""
        if blocks and "chi" in blocks[0]:
            return
        for block, place, function, x in self._each(blocks):
            block["chi"] = block["branch_gain"] = None
            if function is not None and x is not None:
                straight = place.is_connection and place.additive and not place.shape_changes
                skip = (1.0 if place.skip_scale is None else place.skip_scale) if straight else None
                with keras.StatelessScope():
                    block["chi"], block["branch_gain"] = chi(function, x, skip=skip)

    def singular_value(self, blocks: Any, model: Any) -> None:
        """Adds `singular_value` to each block."""
        for block, _, function, x in self._each(blocks):
            block["singular_value"] = None
            if function is not None and x is not None:
                with keras.StatelessScope():
                    block["singular_value"] = largest_singular_value(function, x)

    def path_lengths(self, blocks: Any, model: Any) -> None:
        """Adds `path_lengths` and `effective_depth`, over the blocks whose branches have a known gain."""
        self.chi(blocks, model)
        gains = [block["branch_gain"] for block in blocks if block["branch_gain"] is not None]
        model["path_lengths"] = path_lengths(gains) if gains else None
        model["effective_depth"] = effective_depth(gains) if gains else None

    def lesion(self, blocks: Any, model: Any) -> None:
        """Adds `lesion` to each block, and `lesion_loss`, the loss of the whole at inference, to the model."""
        count = len(self.recorder.places)
        masks = np.concatenate([np.ones((1, count)), 1 - np.eye(count)]).astype("float32")
        losses = np.asarray(
            _backend.run_compiled(self._losses_with, distinct(self.model.variables), (self.given, masks))
        )
        effects = lesion_effects([float(loss) for loss in losses[1:]], float(losses[0]))
        by_place = dict(zip(map(id, self.recorder.places), effects, strict=True))
        model["lesion_loss"] = float(losses[0])
        for block, place in zip(blocks, self.places, strict=True):
            block["lesion"] = by_place[id(place)]

    def _losses_with(self, arguments: Any) -> Any:
        given, masks = arguments

        def body(carry: Any, masks: Any, _: Any) -> Any:
            self.recorder.reset(lambda shape, dtype: ops.zeros(shape, dtype))
            (self.recorder.mask,) = masks
            try:
                with self.recorder.watching():
                    outputs = self._call(given[0], training=False)
            finally:
                self.recorder.mask = None
            return carry, (self.loss(outputs, *given[1:]),)

        _, (losses,) = _backend.scan(body, ops.zeros(()), (ops.convert_to_tensor(masks),))
        return losses

    # --- The whole ----------------------------------------------------------------------------------------------------

    def shattering(self, blocks: Any, model: Any) -> None:
        """Adds `gradient_autocorrelation`, by lag, for a model of one input of floats."""
        x = self.given[0]
        single = hasattr(x, "shape") and keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype))
        model["gradient_autocorrelation"] = None
        if not single or x.shape[0] < 2:
            return
        inputs = curve(ops.convert_to_numpy(x))
        gradients = _backend.input_gradient(
            lambda x: random_direction(ops.mean(self._call(x, training=self.training), axis=0, keepdims=True)), inputs
        )
        found = gradient_autocorrelation(ops.convert_to_numpy(gradients))
        model["gradient_autocorrelation"] = {str(lag): value for lag, value in found.items()}

    def cka(self, blocks: Any, model: Any) -> None:
        """Adds `cka`, a row for each block."""
        grams = [None if one is None else gram(one) for one in self._behind()]
        model["cka"] = [[None if a is None or b is None else float((a * b).sum()) for b in grams] for a in grams]

    def early_exit(self, blocks: Any, model: Any) -> None:
        """Adds `early_exit`, the accuracy of a linear classifier behind it, to each block."""
        labels = np.asarray(ops.convert_to_numpy(self.given[1]))
        for block, features in zip(blocks, self._behind(), strict=True):
            block["early_exit"] = None if features is None else probe_accuracy(_pooled(features), labels)

    def loss_slice(self, blocks: Any, model: Any) -> None:
        """Adds `loss_slice`, the loss at inference along one random direction of the weights."""
        points = slice_points()
        losses = self._losses_around(points, 1)
        at = [float(point) for point in points[:, 0]]
        model["loss_slice"] = {"at": at, "loss": losses.tolist(), "curvature": curvature(at, losses.tolist())}

    def loss_surface(self, blocks: Any, model: Any) -> None:
        """Adds `loss_surface`, the same over the plane of two: a row for each distance along the first."""
        points = surface_points()
        side = round(len(points) ** 0.5)
        losses = self._losses_around(points, 2).reshape(side, side)
        model["loss_surface"] = {"at": [float(point) for point in points[:side, 1]], "loss": losses.tolist()}

    def sharpness(self, blocks: Any, model: Any) -> None:
        """Adds `sharpness`, the largest eigenvalue of the Hessian of the loss at inference."""
        model["sharpness"] = sharpness_of(self.model, self._loss_at_inference, self.given)

    # --- What they need -----------------------------------------------------------------------------------------------

    def _loss_at_inference(self, given: Any) -> Any:
        return self.loss(self._call(given[0], training=False), *given[1:])

    def _losses_around(self, points: np.ndarray, count: int) -> np.ndarray:
        # The first direction of the plane is that of the line.
        directions = [random_direction_of(self.model, seed) for seed in range(count)]
        return losses_around(self.model, self._loss_at_inference, directions, points, self.given)

    def _call(self, x: Any, training: bool) -> Any:
        return self.model(x, **({"training": training} if self.model._call_has_training_arg else {}))

    def _keep(self) -> None:
        """Calls the model once, and keeps what each block receives and hands on."""
        if self._features is not None:
            return
        recorder = self.recorder
        recorder.reset(lambda shape, dtype: ops.zeros(shape, dtype))
        recorder.keep = True
        try:
            with keras.StatelessScope(), recorder.watching():
                self._call(self.given[0], self.training)
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

    def _behind(self) -> list[np.ndarray | None]:
        self._keep()
        return self._features or []

    def _each(self, blocks: Any) -> list[tuple[Any, ReportedBlock, BlockFunction | None, Any]]:
        self._keep()
        functions = {}
        for target in self.recorder.targets:
            made = block_functions(target, self.training, self._runs)
            functions |= dict(zip(map(id, target.places), made, strict=True))
        each = zip(blocks, self.places, self._received, strict=True)
        # No gradient goes to tokens and other whole numbers.
        return [(block, place, functions[id(place)] if _is_float(x) else None, x) for block, place, x in each]


def _is_float(x: Any) -> bool:
    return x is not None and keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype))


def _pooled(features: np.ndarray) -> np.ndarray:
    if features.ndim < 3:
        return features
    first = keras.config.image_data_format() == "channels_first" and features.ndim > 3
    return features.mean(axis=tuple(range(2, features.ndim) if first else range(1, features.ndim - 1)))


REQUESTED: dict[str, Callable[[MeasuringRequest, Any, Any], None]] = {
    "chi": MeasuringRequest.chi,
    "singular_value": MeasuringRequest.singular_value,
    "path_lengths": MeasuringRequest.path_lengths,
    "lesion": MeasuringRequest.lesion,
    "shattering": MeasuringRequest.shattering,
    "cka": MeasuringRequest.cka,
    "early_exit": MeasuringRequest.early_exit,
    "loss_slice": MeasuringRequest.loss_slice,
    "loss_surface": MeasuringRequest.loss_surface,
    "sharpness": MeasuringRequest.sharpness,
}
"""What adds each quantity to a report, by name."""


def check_quantities(names: Sequence[str], y: Any) -> None:
    """Raises where a quantity is unknown, or needs targets that there are not.

    Args:
        names: Names of quantities.
        y: The targets as a tensor, a structure of tensors, or None.
    """
    for name in names:
        if name not in REQUESTED:
            raise unknown_name("xray", "quantities", name, REQUESTED)
    for name in ("lesion", "loss_slice", "loss_surface", "sharpness"):
        if name in names and y is None:
            raise bad_argument("xray", "y", f"the targets of the loss, for {name!r}", y)
    if "early_exit" not in names:
        return
    dtype = keras.backend.standardize_dtype(y.dtype) if hasattr(y, "dtype") else None
    if dtype is None or not dtype.startswith(("int", "uint")) or tuple(y.shape[1:]) not in ((), (1,)):
        received = dtype and f"{dtype} of shape {tuple(y.shape)}"
        raise bad_argument("xray", "y", "labels, whole numbers of shape (batch,), for 'early_exit'", received)
    labels = np.asarray(ops.convert_to_numpy(y))
    if labels.min() < 0 or labels.max() >= MOST_CLASSES:
        rule, received = (
            f"labels from 0 to {MOST_CLASSES - 1}, for 'early_exit'",
            (int(labels.min()), int(labels.max())),
        )
        raise bad_argument("xray", "y", rule, received, "The numbers are the smallest and the largest label.")


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
