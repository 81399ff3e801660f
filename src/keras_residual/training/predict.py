"""`predict`: a saved model's answers to pictures or table rows without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_residual._errors import printable
from keras_residual.data import load_inputs
from keras_residual.models.outputs import ending
from keras_residual.training.saved import Saved, raw_outputs
from keras_residual.training.scores import log_probabilities


@dataclass(frozen=True)
class Prediction:
    """The answer to one input.

    Args:
        input: The picture's file, or file and row.
        answer: Name of the class, or the number.
        probability: That of the class, in `[0, 1]`; None for a number.
    """

    input: str
    answer: str | float
    probability: float | None


def load_prediction_inputs(saved: Saved, paths: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Reads inputs in the shape or the columns that the model knows; returns them with a name for each.

    Raises:
        ValueError: If a path cannot be read, or the model does not say which columns it takes.
    """
    if len(saved.shape) == 3:
        height, width, channels = saved.shape
        return load_inputs(paths, kind="pictures", image_shape=(height, width, channels))
    if not saved.data.features:
        raise ValueError(
            f"{printable(saved.path)} does not say which columns it takes. Name its run directory instead."
        )
    return load_inputs(paths, kind="table", features=saved.data.features)


def predict(saved: Saved, x: np.ndarray, names: Sequence[str]) -> list[Prediction]:
    """Returns an answer for each row of `x`.

    Raises:
        NoAnswerError: If the model gives no finite numbers.
    """
    outputs = raw_outputs(saved.model, x, path=saved.path, mirrored=saved.mirrored)
    if not saved.classes:
        return [Prediction(name, float(value), None) for name, value in zip(names, outputs[:, 0], strict=True)]
    logits = ending(saved.model, outputs) == "logits"
    probabilities = np.exp(log_probabilities(outputs)) if logits else outputs
    best = np.argmax(probabilities, axis=-1)
    return [
        Prediction(name, saved.classes[index], float(row[index]))
        for name, index, row in zip(names, best, probabilities, strict=True)
    ]
