"""The X-ray of a model: one forward and one backward pass, in which everything is measured."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_residual import _backend
from keras_residual._errors import bad_argument, wrong_type
from keras_residual._keras import print_msg
from keras_residual.xray.find.replaced import LOCK
from keras_residual.xray.measure.batch import batch_of
from keras_residual.xray.measure.loss import loss_of
from keras_residual.xray.measure.on_request import RequestedLook, check_quantities, costs_in_words
from keras_residual.xray.measure.program import MeasuringProgram
from keras_residual.xray.quantities import QUANTITIES
from keras_residual.xray.report import XrayReport


class Xray:
    """Measures a model on one batch, as often as `report` is called, compiling once.

    Each report reflects the current weights, statistics and learning rate. `kr.xray(model, x, y)` is
    `kr.Xray(model, x, y).report()`, for one look. The program is made at the first report, and made again where layers
    were frozen or freed, or the model was compiled with another loss. Other settings of layers, such as a rate or an
    activation, are those of the first report on JAX and TensorFlow, as they are for `fit`: make a new `Xray` after a
    change. Nothing of the model changes.

    Args:
        model: See `kr.xray`; the other arguments are the same.
        x: A batch of inputs.
        y: Targets of the batch.
        loss: The loss; by default that of `compile`.
        sample_weight: Weights of the samples.
        training: Whether the layers act as in training.
        entries: Entries of each weight, and of its gradient, that `entries` returns; 0 keeps none.

    Raises:
        ValueError: For a batch that is empty, or arrays of different numbers of rows.
        TypeError: If `model` is not a Keras layer, or for arrays of anything but numbers.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), kr.Residual(keras.layers.Dense(8), norm="layer_norm")])
        >>> model.compile("sgd", "mse")
        >>> x = np.random.default_rng(0).normal(size=(32, 8))
        >>> look = kr.Xray(model, x, x)
        >>> before = look.report()
        >>> _ = model.fit(x, x, epochs=2, verbose=0)
        >>> look.report().model["loss"] < before.model["loss"]
        True
    """

    def __init__(
        self,
        model: keras.Layer,
        x: Any,
        y: Any = None,
        loss: Any = None,
        *,
        sample_weight: Any = None,
        training: bool = True,
        entries: int = 0,
    ) -> None:
        if not isinstance(model, keras.Layer):
            raise wrong_type("xray", "model", "a Keras model or layer", model)
        self.model = model
        self._batch = batch_of("xray", x, y, sample_weight)
        self._loss = loss
        self._training = training
        self._entries = entries
        self._program: MeasuringProgram | None = None
        self._key: Any = None
        self._compiled_for: Any = None
        self._watches = False
        self._before: list[Any] | None = None

    def report(
        self,
        quantities: Sequence[str] = (),
        *,
        update_steps: int | None = None,
        facts: Mapping[str, Any] | None = None,
        verbose: bool = True,
    ) -> XrayReport:
        """Looks at the model as it is now.

        Args:
            quantities: See `kr.xray`.
            update_steps: Number of training steps since `watch`; `update_ratio` is then the mean change of one of them.
            facts: What else is known of the moment, such as `{"step": 100}`; it becomes part of the report's `.model`.
                `"name"` replaces the model's; other keys that the report has by itself are refused.
            verbose: Whether it prints what the quantities cost before anything is measured.

        Returns:
            An `XrayReport`.

        Raises:
            ValueError: For targets without a loss, targets or weights of a shape that a loss of Keras cannot take, an
                unknown quantity, one that lacks targets, or facts that the report measures itself.
            TypeError: For quantities that are no list of names, or facts that are no mapping with names as keys.
        """
        names, facts = _names(quantities), _as_facts(facts)
        check_quantities(names, self._batch[1])
        with LOCK, _backend.keeping_random_state():
            program = self._current_program()
            if names and verbose:
                print_msg(costs_in_words(names, len(program.recorder.places)))
            if self._before is None and (self._watches or update_steps is not None):
                update_steps = 0
            if self._before is None and self._watches:
                self._before = program.snapshot()  # by the same program as those reports that were watched
            blocks, whole = program.run(self._before or (), update_steps=update_steps)
            self._compiled_for = self._key, self._watches
            _check_facts(facts, whole)
            if names:
                recorder = copy.copy(program.recorder)
                look = RequestedLook(self.model, recorder, program.given, program.loss, self._training)
                look.add(names, blocks, whole)
                _check_facts(facts, whole)  # a quantity may have added more than its own key
            self._before = None
        return XrayReport(blocks, {**whole, **facts})

    @property
    def compiled(self) -> bool:
        """Whether the next report has nothing to compile."""
        if self._compiled_for is None:
            return False
        return self._compiled_for == (self._program_key(), self._watches)

    def watch(self) -> None:
        """Keeps the weights as they are, so that the next report can tell how far they have moved.

        It takes the memory of the weights until then. An `Xray` that has once watched compiles another program than one
        that has not.
        """
        with LOCK, _backend.keeping_random_state():
            self._watches, self._before = True, self._current_program().snapshot()

    def entries(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns for each block some entries of its trained weights, and of their gradients, at the last report."""
        return [] if self._program is None else self._program.entries()

    def _current_program(self) -> MeasuringProgram:
        """Returns the program for the model as it is."""
        x, y, sample_weight = self._batch
        if self._program is None:
            _make_weights(self.model, x)
        key = self._program_key()
        if self._program is None or key != self._key:
            more = {"sample_weight": sample_weight, "entries": self._entries}
            self._program = MeasuringProgram(self.model, x, y, self._loss, self._training, **more)
            self._key, self._before = key, None
        return self._program

    def _program_key(self) -> Any:
        model: Any = self.model
        return loss_of(model, self._loss), [(id(variable), variable.trainable) for variable in model.variables]


def xray(
    model: keras.Layer,
    x: Any,
    y: Any = None,
    loss: Any = None,
    *,
    sample_weight: Any = None,
    quantities: Sequence[str] = (),
    training: bool = True,
    verbose: bool = True,
) -> XrayReport:
    """Looks through a model with one batch: whether the gradient arrives, what each block adds, and what to change.

    It finds the residual connections by itself: each outermost `kr.Residual`, each block of a `kr.ResidualStack`, and
    each sum or concatenation in a Functional model or a `call` method where one input is computed from the other. Where
    there is none it goes layer by layer. Nothing of the model changes: weights, moving statistics, states of seeds, and
    what it was compiled with. To look again as the weights change, take a `kr.Xray`, which compiles once.

    Args:
        model: Any Keras model or layer. One that is not built yet is called once, which gives it its weights.
        x: A batch of inputs, as the model takes them. Use at least 32 samples to tell dead units from rarely active
            ones; below 16 they are not reported.
        y: Targets of the batch. Without them the gradient is that of a random direction of the output.
        loss: A loss of Keras, its name, a function of targets and outputs, or for several outputs a structure of these,
            as of `compile`; by default that of `compile`, with its `loss_weights`. Penalties of weights and of
            `add_loss`, and weights of classes, are left out.
        sample_weight: Weights of the samples, as of `fit`, with which the loss takes them.
        quantities: Names of optional quantities to measure as well; their cost is printed first: of each block
            `"chi"`, `"singular_value"`, and with targets `"lesion"`, of the loss at inference, and `"early_exit"`
            (which takes `y` as labels, 0 to 9999); of the whole `"path_lengths"`, `"shattering"`, `"cka"`, and with
            targets `"loss_slice"`, `"loss_surface"` and `"sharpness"`, of the loss at inference.
        training: Whether the layers act as in training. A batch norm then takes the statistics of this batch.
        verbose: Whether it prints what the quantities cost before anything is measured.

    Returns:
        An `XrayReport`, with `.blocks`, `.model`, `.advice`, `.to_dict()` and `.to_json(path)`; `print` shows a table.

    Raises:
        ValueError: For targets without a loss, a batch that is empty, arrays of different numbers of rows, targets or
            weights of a shape that a loss of Keras cannot take, an unknown quantity, or one that lacks targets.
        TypeError: If `model` is not a Keras layer, or for arrays of anything but numbers.

    Example:
        >>> inputs = keras.Input((8,))
        >>> x = kr.Residual([keras.layers.Dense(8, activation="relu"), keras.layers.Dense(8)], name="first")(inputs)
        >>> model = keras.Model(inputs, x + keras.layers.Dense(8, activation="relu")(x))
        >>> report = xray(model, np.random.default_rng(0).normal(size=(32, 8)))
        >>> [block["kind"] for block in report.blocks]
        ['residual', 'add']

    Reference:
        Each file of the folder `keras_residual/xray/quantities` names its own.
    """
    look = Xray(model, x, y, loss, sample_weight=sample_weight, training=training)
    return look.report(quantities, verbose=verbose)


def _names(quantities: Any) -> list[str]:
    quantities = (quantities,) if isinstance(quantities, str) else quantities
    quantities = [*quantities] if isinstance(quantities, Iterable) else quantities
    if not isinstance(quantities, list) or not all(isinstance(name, str) for name in quantities):
        rule = "a list of quantity names, such as ['lesion', 'cka'], or [] for none"
        raise wrong_type("xray", "quantities", rule, quantities)
    return quantities


def _as_facts(facts: Any) -> dict[str, Any]:
    if facts is not None and not (isinstance(facts, Mapping) and all(isinstance(key, str) for key in facts)):
        raise wrong_type("xray", "facts", "a mapping with names as keys, such as {'step': 100}", facts)
    return dict(facts or {})


def _check_facts(facts: Mapping[str, Any], measured: Mapping[str, Any]) -> None:
    reserved = {*measured, "update_steps", *(quantity.key for quantity in QUANTITIES)} - {"name"}
    taken = sorted(reserved & set(facts))
    if taken:
        rule = f"without {', '.join(map(repr, taken))}, which the report has by itself"
        raise bad_argument("xray", "facts", rule, dict(facts), "Take another key.")


def _make_weights(model: Any, x: Any) -> None:
    """Builds a model that has no weights yet by calling it once.

    One that is built may have layers that no call reaches, and stay without their weights: its variables are left as
    they are.

    Args:
        model: A model or layer.
        x: A batch.
    """
    if not model.built:
        model(x)
    elif not all(layer.built for layer in model._flatten_layers()):
        with keras.StatelessScope():
            model(x)
