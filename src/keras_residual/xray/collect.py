"""The X-ray of a model: one forward and one backward pass, in which everything is measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual import _backend
from keras_residual._errors import bad_argument, unknown_name, wrong_type
from keras_residual.stacks.state import is_float, rank_in_block
from keras_residual.xray.assemble import assemble
from keras_residual.xray.discover import Target, discover
from keras_residual.xray.loss import loss_function, loss_scale
from keras_residual.xray.quantities.numerics import nan_share, underflow_share
from keras_residual.xray.quantities.scaled_norm import scaled_norm
from keras_residual.xray.quantities.stream_gradient import gradient_norm, gradient_spread
from keras_residual.xray.recorder import Recorder
from keras_residual.xray.report import XrayReport
from keras_residual.xray.requested import REQUESTED, Request
from keras_residual.xray.structure import distinct


def xray(
    model: keras.Layer,
    x: Any,
    y: Any = None,
    loss: Any = None,
    *,
    quantities: Sequence[str] = (),
    training: bool = True,
) -> XrayReport:
    """Looks through a model with one batch: whether the gradient arrives, what each block adds, and what to change.

    It finds the residual connections by itself: each `kr.Residual`, each block of a `kr.ResidualStack`, and in a
    Functional model each sum or concatenation of which one input reaches the other. Where there is none it goes layer
    by layer. Nothing of the model changes: weights, moving statistics, states of seeds, and what it was compiled with.

    Args:
        model: Any Keras model or layer. One that is not built yet is called once, which gives it its weights.
        x: A batch of inputs, as the model takes them; 32 samples and more tell dead units from rare ones.
        y: Targets of the batch. Without them the gradient is that of a random direction of the output.
        loss: A loss of Keras, its name, or a function of targets and outputs; by default that of `compile`.
        quantities: Names of what is to be measured beside the rest, each at a cost of its own: `"chi"` (four passes
            through each block and back), `"singular_value"` (48 passes through each block), `"path_lengths"` (as
            `"chi"`), `"lesion"` (one forward pass of the model a block), `"shattering"` (a pass back of 256 samples),
            `"cka"` and `"early_exit"` (one forward pass, and its activations in memory; `"early_exit"` takes `y` as
            labels).
        training: Whether the layers act as in training. A batch norm then takes the statistics of this batch.

    Returns:
        An `XrayReport`, with `.blocks`, `.model`, `.advice`, `.to_dict()` and `.to_json(path)`; `print` shows a table.

    Raises:
        ValueError: For targets without a loss, a batch that is empty, or an unknown quantity.
        TypeError: For a model that is none.

    Example:
        >>> inputs = keras.Input((8,))
        >>> x = kr.Residual([keras.layers.Dense(8, activation="relu"), keras.layers.Dense(8)], name="first")(inputs)
        >>> model = keras.Model(inputs, x + keras.layers.Dense(8, activation="relu")(x))
        >>> report = xray(model, np.random.default_rng(0).normal(size=(32, 8)))
        >>> [block["kind"] for block in report.blocks]
        ['residual', 'add']

    Reference:
        The docstring of each module in `keras_residual.xray.quantities` has its own.
    """
    if not isinstance(model, keras.Layer):
        raise wrong_type("xray", "model", "a model or a layer of Keras", model)
    for name in quantities:
        if name not in REQUESTED:
            raise unknown_name("xray", "quantities", name, REQUESTED)
    x, y = _tensors("x", x), None if y is None else _tensors("y", y)
    with _backend.keeping_random_state():
        if not _is_built(model):
            model(x)
        collection = _Collection(model, discover(model), x, y, loss, training)
        report = collection.report()
        if quantities:
            request = Request(model, collection.recorder, collection.given, collection.loss, training)
            request.add(quantities, report)
        return report


class _Collection:
    """One X-ray on its way: the function that is compiled, and what is made of its numbers."""

    def __init__(self, model: Any, targets: list[Target], x: Any, y: Any, loss: Any, training: bool) -> None:
        self.model = model
        self.given = (x, y) if y is not None else (x,)
        self.training = training
        self.recorder = Recorder(targets)
        self.loss = loss_function(model, y, loss)
        # The narrowest type that a layer computes in is where numbers are lost first.
        policies = {layer.compute_dtype for layer in model._flatten_layers()}
        self.dtype = "float16" if "float16" in policies else "bfloat16" if "bfloat16" in policies else "float32"
        self.scale = loss_scale(model, self.dtype == "float16")
        places = [place for target in targets for place in target.places]
        self.weights = distinct(v for place in places for v, _ in place.weights if is_float(v))
        self.trained = [variable for variable in self.weights if variable.trainable]

    def report(self) -> XrayReport:
        """Runs the program, and returns its report."""
        asked = {id(variable) for variable in self.trained}
        others = [variable for variable in distinct(self.model.variables) if id(variable) not in asked]
        found = _backend.probed_gradients(self._forward, self._finish, self.trained, others, self.given)
        numbers: Any = keras.tree.map_structure(lambda t: np.asarray(ops.convert_to_numpy(t)), found)
        facts = {
            "batch": int(keras.tree.flatten(self.given[0])[0].shape[0]),
            "dtype": self.dtype,
            "backend": keras.backend.backend(),
            "training": self.training,
        }
        blocks, whole = assemble(self.model, self.recorder, self.weights, self.trained, numbers, facts)
        return XrayReport(blocks, whole)

    def _forward(self, probe: Any, given: Any) -> tuple[Any, Any]:
        self.recorder.reset(probe)
        arguments = {"training": self.training} if self.model._call_has_training_arg else {}
        with self.recorder.watching():
            outputs = self.model(given[0], **arguments)
        loss = self.loss(given[1] if len(given) > 1 else None, outputs)
        weights = [_weight_numbers(variable) for variable in self.weights]
        return loss * self.scale, {"seen": self.recorder.finished(), "loss": loss, "weights": weights}

    def _finish(self, outputs: Any, probe_gradients: list[Any], weight_gradients: list[Any]) -> Any:
        streams = [
            _stream_numbers(gradient, 1 if kind == "rows" else 0, self.scale)
            for gradient, (kind, _) in zip(probe_gradients, self.recorder.probes, strict=True)
        ]
        weights = [
            scaled_norm(gradient, _stacked_axes(variable)) / self.scale
            for gradient, variable in zip(weight_gradients, self.trained, strict=True)
        ]
        return {**outputs, "streams": streams, "weight_gradients": weights}


def _stream_numbers(gradient: Any, batch_axis: int, scale: float) -> dict[str, Any]:
    return {
        "norm": gradient_norm(gradient, batch_axis) / scale,
        "spread": gradient_spread(gradient, batch_axis),
        "nan": nan_share(gradient, batch_axis),
        "underflow": underflow_share(gradient, batch_axis),
    }


def _weight_numbers(variable: keras.Variable) -> dict[str, Any]:
    value: Any = ops.cast(variable.value, "float32")
    first = _stacked_axes(variable)
    return {
        "norm": scaled_norm(value, first),
        "sum": ops.sum(value, axis=tuple(range(first, len(value.shape)))),
    }


def _stacked_axes(variable: keras.Variable) -> int:
    return len(variable.shape) - rank_in_block(variable)


def _is_built(model: Any) -> bool:
    return model.built and all(layer.built for layer in model._flatten_layers())


def _tensors(argument: str, given: Any) -> Any:
    def convert(array: Any) -> Any:
        if not hasattr(array, "shape"):
            array = np.asarray(array)
        if not len(array.shape) or not array.shape[0]:
            raise bad_argument("xray", argument, "a batch of at least one sample", tuple(array.shape))
        tensor: Any = ops.convert_to_tensor(array)
        double = keras.backend.standardize_dtype(tensor.dtype) == "float64"
        return ops.cast(tensor, keras.config.floatx()) if double else tensor

    if isinstance(given, Sequence) and not isinstance(given, (list, tuple)):
        raise wrong_type("xray", argument, "an array, a tensor, or a structure of these", given)
    return keras.tree.map_structure(convert, given)
