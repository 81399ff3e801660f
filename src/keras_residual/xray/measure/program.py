"""The program in which everything is measured: one forward and one backward pass, compiled once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual import _backend
from keras_residual._errors import bad_argument
from keras_residual.stacks.variables import is_float, rank_in_block
from keras_residual.xray.find.discover import discover
from keras_residual.xray.find.replaced import one_at_a_time
from keras_residual.xray.find.structure import distinct
from keras_residual.xray.measure.batch import arrays_of, given_of
from keras_residual.xray.measure.blocks import assemble
from keras_residual.xray.measure.broken import broken_facts
from keras_residual.xray.measure.calls import Called, ending_facts, ending_numbers
from keras_residual.xray.measure.loss import FollowedLoss, loss_of, loss_scale
from keras_residual.xray.measure.recorder import Recorder
from keras_residual.xray.quantities import measured_of
from keras_residual.xray.quantities.numerics import scaled_norm

Numbers = dict[str, Any]


class MeasuringProgram:
    """The X-ray of a model as a program, which is compiled once: run again, it measures what the weights are by then.

    Args:
        model: A built model or layer.
        x: The batch.
        y: Its targets, or None.
        loss: As of `xray`.
        training: Whether the layers act as in training.
        sample_weight: Weights of the samples, or None.
        entries: Number of entries of each weight and of its gradient that are kept for `entries`; 0 for none.

    Raises:
        ValueError: If there is nothing to be watched.
    """

    def __init__(
        self,
        model: Any,
        x: Any,
        y: Any,
        loss: Any,
        training: bool,
        *,
        sample_weight: Any = None,
        entries: int = 0,
    ) -> None:
        targets = discover(model, x, training=training)
        if not targets:
            raise bad_argument("xray", "model", "a model with a residual connection or a layer with weights", model)
        self.model = model
        self.given: tuple[Any, ...] = given_of(x, y, sample_weight)
        self.training = training
        self.recorder = Recorder(targets, model)
        self.loss = FollowedLoss(model, y, loss)
        self._followed = None if y is None else loss_of(model, loss)[0]
        self._called = Called(model, self.recorder)
        # The narrowest type that a layer computes in is where numbers are lost first.
        policies = {layer.compute_dtype for layer in model._flatten_layers()}
        self.dtype = "float16" if "float16" in policies else "bfloat16" if "bfloat16" in policies else "float32"
        held = [v for target in targets for place in target.places for v, _ in place.weights]
        self.weights = distinct(v for v in (*held, *model.variables) if is_float(v))
        self.trained = [variable for variable in self.weights if variable.trainable]
        self._entries = entries
        self.numbers: Any = None
        """What came out of the last run."""
        self._arrays: Numbers | None = None
        self._labels: list[Numbers] = []
        asked = {id(variable) for variable in self.trained}
        others = [variable for variable in distinct(model.variables) if id(variable) not in asked]
        self._program = _backend.probed_gradients(self._forward, self._finish, self.trained, others)

    def snapshot(self) -> list[Any]:
        """Returns copies of the weights that are trained, which a later step of training leaves as they are."""
        # Copied, since Keras's training on JAX donates the buffers of the variables, which are gone after a step.
        return [ops.copy(ops.stop_gradient(variable.value)) for variable in self.trained]

    @one_at_a_time
    def run(self, before: Sequence[Any] = (), *, update_steps: int | None = None) -> tuple[list[Numbers], Numbers]:
        """Runs the program, and returns the entries of the blocks and the quantities of the whole.

        Args:
            before: A snapshot, from which it is measured how far the weights have moved since. A program that was given
                one at its first run gets one at each.
            update_steps: The number of steps of training since then.
        """
        scale = ops.convert_to_tensor(loss_scale(self.model, self.dtype == "float16"), "float32")
        try:
            found = self._program((self.given, scale, list(before)))
        finally:
            self.recorder.forget()
        numbers: Any = keras.tree.map_structure(lambda t: np.asarray(ops.convert_to_numpy(t)), found)
        self.numbers = numbers
        arrays = self._known_arrays()
        facts = {
            "batch": int(keras.tree.flatten(self.given[0])[0].shape[0]),
            "dtype": self.dtype,
            "backend": keras.backend.backend(),
            "training": self.training,
            "ending": ending_facts(self._called.last, self._followed, numbers["ending"]),
            "entries": [
                {**fact, **_plain(own)}
                for fact, own in zip(self._called.entry_facts(), numbers["entered"], strict=True)
            ],
            "labels": [{**fact, **_plain(own)} for fact, own in zip(self._labels, numbers["labels"], strict=True)],
            **arrays,
        }
        if update_steps is not None:
            facts["update_steps"] = update_steps
        normed = self._called.normed
        blocks, whole = assemble(self.model, self.recorder, self.weights, self.trained, numbers, facts, normed)
        whole |= broken_facts(self, blocks, whole)
        return blocks, whole

    def _known_arrays(self) -> Numbers:
        """Returns what is known of the arrays of the batch, which stays the same."""
        if self._arrays is None:
            x, y, sample_weight = (*self.given, None, None)[:3]
            words = {
                "inputs": (x, "input"),
                "targets": (y, "targets"),
                "sample_weights": (sample_weight, "sample_weight"),
            }
            self._arrays = {key: arrays_of(structure, word) for key, (structure, word) in words.items()}
        return self._arrays

    def entries(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns for each block some entries of its trained weights, and of their gradients, in the last run.

        There are none before the first run, and without any that are kept.
        """
        if not self._entries or self.numbers is None:
            return []
        kept = zip(self.trained, self.numbers["entries"], strict=True)
        by_variable = {id(variable): pair for variable, pair in kept}
        found = []
        for place in (place for places in self.recorder.order for place in places):
            pairs = [(by_variable[id(v)], index) for v, index in place.weights if id(v) in by_variable]
            parts = [[part if index is None else part[index] for part in pair] for pair, index in pairs]
            columns = zip(*parts, strict=True) if parts else ([], [])
            weights, gradients = (np.concatenate([np.ravel(part) for part in [[], *column]]) for column in columns)
            found.append((weights, gradients))
        return found

    def _forward(self, probe: Any, given: Any) -> tuple[Any, Any]:
        data, scale, before = given
        self.recorder.reset(probe)
        arguments = {"training": self.training} if self.model._call_has_training_arg else {}
        with self.recorder.watching(), self._called.watching():
            outputs = self.model(data[0], **arguments)
        outputs = self.recorder.ended(outputs)
        with self.loss.noting() as labels:
            loss = self.loss(outputs, *data[1:])
        self._labels = [fact for fact, _ in labels]
        weights = [_weight_numbers(variable) for variable in self.weights]
        moved = [_moved(variable, value) for variable, value in zip(self.trained, before, strict=bool(before))]
        kept = [self._some_of(variable.value, variable) for variable in self.trained if self._entries]
        found = {"seen": self.recorder.finished(), "loss": loss, "weights": weights, "moved": moved}
        ending = ending_numbers(outputs, [variable.value for variable in self._called.head()])
        found |= {"entered": self._called.entry_numbers, "labels": [own for _, own in labels]}
        return loss * scale, {**found, "scale": scale, "entries": kept, "ending": ending}

    def _finish(self, outputs: Any, probe_gradients: list[Any], weight_gradients: list[Any]) -> Any:
        scale, kept = outputs["scale"], outputs["entries"]
        streams = [
            _stream_numbers(
                gradient, 1 if kind == "rows" else 0, scale, over_time=self.recorder.is_recurrent(kind, entry)
            )
            for gradient, (kind, entry) in zip(probe_gradients, self.recorder.probes, strict=True)
        ]
        pairs = list(zip(weight_gradients, self.trained, strict=True))
        weights = [scaled_norm(gradient, _stacked_axes(variable)) / scale for gradient, variable in pairs]
        if self._entries:
            of_gradients = [self._some_of(gradient, variable) / scale for gradient, variable in pairs]
            kept = list(zip(kept, of_gradients, strict=True))
        return {**outputs, "streams": streams, "weight_gradients": weights, "entries": kept}

    def _some_of(self, value: Any, variable: keras.Variable) -> Any:
        return some_entries(ops.stop_gradient(value), _stacked_axes(variable), self._entries)


def _plain(numbers: Numbers) -> Numbers:
    return {name: float(value) for name, value in numbers.items()}


def _stream_numbers(gradient: Any, batch_axis: int, scale: Any, *, over_time: bool) -> Numbers:
    found = {quantity.key: quantity.measure(gradient, batch_axis, scale) for quantity in measured_of("gradient")}
    if over_time:
        found |= {quantity.key: quantity.measure(gradient) for quantity in measured_of("recurrent gradient")}
    return found


def _weight_numbers(variable: keras.Variable) -> dict[str, Any]:
    value: Any = ops.cast(variable.value, "float32")
    first = _stacked_axes(variable)
    return {
        "norm": scaled_norm(value, first),
        "sum": ops.sum(value, axis=tuple(range(first, len(value.shape)))),
    }


def _moved(variable: keras.Variable, before: Any) -> dict[str, Any]:
    """Returns how far a weight is from what it was, and the norm that it had."""
    before, first = ops.cast(before, "float32"), _stacked_axes(variable)
    now: Any = ops.cast(variable.value, "float32")
    return {"by": scaled_norm(ops.stop_gradient(now) - before, first), "from": scaled_norm(before, first)}


def _stacked_axes(variable: keras.Variable) -> int:
    return len(variable.shape) - rank_in_block(variable)


def some_entries(value: Any, first_axis: int, most: int) -> Any:
    """Returns entries at equal distances, as many as `most` or a few less, in float32; all where there are no more.

    Args:
        value: Float tensor.
        first_axis: First of the axes that are taken together; those before it stay.
        most: Number of entries, 1 or more.
    """
    flat: Any = ops.reshape(ops.cast(value, "float32"), (*value.shape[:first_axis], -1))
    # An odd distance: the number of channels is even as a rule, and all entries would be of a few of them.
    distance = -(-flat.shape[-1] // most) | 1
    return flat[..., ::distance]
