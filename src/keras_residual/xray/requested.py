"""The quantities that are measured on request, each at a cost of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual import _backend
from keras_residual._errors import bad_argument
from keras_residual.xray.block_functions import BlockFunction, block_functions
from keras_residual.xray.loss import Loss, random_direction
from keras_residual.xray.place import Place
from keras_residual.xray.quantities.chi import chi
from keras_residual.xray.quantities.cka import gram
from keras_residual.xray.quantities.early_exit import probe_accuracy
from keras_residual.xray.quantities.lesion import lesion_effects
from keras_residual.xray.quantities.path_lengths import effective_depth, path_lengths
from keras_residual.xray.quantities.shattering import curve, gradient_autocorrelation
from keras_residual.xray.quantities.singular_value import largest_singular_value
from keras_residual.xray.recorder import Recorder
from keras_residual.xray.report import XrayReport
from keras_residual.xray.structure import distinct

MOST_WHOLE_NUMBER_LABELS = 10_000


class Request:
    """Measures what was asked for, and adds it to a report.

    Args:
        model: The model.
        recorder: What watches it.
        given: The batch, and the targets if there are any.
        loss: The loss.
        training: Whether the layers act as in training.
    """

    def __init__(self, model: Any, recorder: Recorder, given: tuple[Any, ...], loss: Loss, training: bool) -> None:
        self.model = model
        self.recorder = recorder
        self.given = given
        self.loss = loss
        self.training = training
        self.places: list[Place] = [place for places in recorder.order for place in places]
        self._features: list[np.ndarray | None] | None = None
        self._received: list[Any] = []

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
            return carry, (self.loss(given[1] if len(given) > 1 else None, outputs),)

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
        labels = None if len(self.given) < 2 else np.asarray(ops.convert_to_numpy(self.given[1]))
        if labels is None or labels.ndim > 2 or not np.issubdtype(labels.dtype, np.integer):
            rule = "labels, whole numbers of shape (batch,), for 'early_exit'"
            raise bad_argument("xray", "y", rule, None if labels is None else labels.dtype)
        for block, features in zip(blocks, self._behind(), strict=True):
            block["early_exit"] = None if features is None else probe_accuracy(_pooled(features), labels)

    # --- What they need -----------------------------------------------------------------------------------------------

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

    def _each(self, blocks: Any) -> list[tuple[Any, Place, BlockFunction | None, Any]]:
        self._keep()
        functions = {}
        for target in self.recorder.targets:
            made = block_functions(target, self.training)
            functions |= dict(zip(map(id, target.places), made, strict=True))
        each = zip(blocks, self.places, self._received, strict=True)
        return [(block, place, functions[id(place)], x) for block, place, x in each]


def _pooled(features: np.ndarray) -> np.ndarray:
    if features.ndim < 3:
        return features
    first = keras.config.image_data_format() == "channels_first" and features.ndim > 3
    return features.mean(axis=tuple(range(2, features.ndim) if first else range(1, features.ndim - 1)))


REQUESTED: dict[str, Callable[[Request, Any, Any], None]] = {
    "chi": Request.chi,
    "singular_value": Request.singular_value,
    "path_lengths": Request.path_lengths,
    "lesion": Request.lesion,
    "shattering": Request.shattering,
    "cka": Request.cka,
    "early_exit": Request.early_exit,
}
"""What adds each quantity to a report, by name."""
