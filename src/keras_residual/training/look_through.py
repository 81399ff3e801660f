"""The X-ray of a run for its report: one batch through the network before and after training, by one program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_residual.training.assemble import Assembled
from keras_residual.training.run_directory import RunDirectory
from keras_residual.xray import Xray, XrayReport

EXAMPLES = 64
"""Examples of the batch: enough to tell dead units from rare ones, few enough to cost no more than a step or two."""


class LookThrough:
    """Looks through the network of a run, as often as it is asked.

    Args:
        run: Whose log says so where the network cannot be looked through: a run is worth more than its X-ray.
        name: What the page calls the network.
        assembled: The models of the run.
        x: Raw inputs.
        y: Labels, or targets in their own units.
        classes: Number of classes; 0 for numbers.
        loss: As `compile` takes it; by default the cross-entropy of logits, or the squared error.
    """

    def __init__(
        self,
        run: RunDirectory,
        name: str,
        assembled: Assembled,
        x: np.ndarray,
        y: np.ndarray,
        *,
        classes: int,
        loss: Any = None,
    ) -> None:
        self._run = run
        self._name = name
        self._assembled = assembled
        inputs, y = np.asarray(assembled.inputs(x[:EXAMPLES])), assembled.targets(y[:EXAMPLES])
        self._x, self._y, self._loss = inputs.astype("float32"), y, loss
        if not classes and y.ndim == 1:
            self._y = y[:, None].astype("float32")
        self._classes = classes
        self._xray: Xray | None = None

    def now(self, weights: Sequence[np.ndarray] | None = None) -> XrayReport | None:
        """Returns an X-ray of the network; None where there can be none.

        Args:
            weights: What its weights are to be, and stay; by default they are what they are.
        """
        if weights is not None:
            self._assembled.network.set_weights(weights)
        try:
            self._xray = self._xray or self._new_xray()
            return self._xray.report(facts={"name": self._name})
        except Exception as error:
            self._run.log(f"The report has no X-ray: {type(error).__name__}: {error}")
            return None

    def _new_xray(self) -> Xray:
        # Of the network, since a table's numbers and targets are standardised before they come to it.
        loss: Any = keras.losses.SparseCategoricalCrossentropy(from_logits=True) if self._classes else "mse"
        return Xray(self._assembled.network, self._x, self._y, self._loss or loss)
