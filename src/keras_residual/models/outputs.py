"""Whether a classifier outputs logits or probabilities, since a saved model may end in either."""

from __future__ import annotations

from typing import Any, Literal

import keras
import numpy as np

from keras_residual.graph.nodes import producer

Ending = Literal["logits", "softmax", "sigmoid"]
SUM_OF_PROBABILITIES = 1e-2
"""How far the sum of probabilities may deviate from 1, also in half precision."""


def ending(model: keras.Model, outputs: np.ndarray) -> Ending:
    """Returns whether a classifier outputs logits or probabilities.

    The last layer decides; where that does not tell (a subclassed model, or one that ends in arithmetic), probabilities
    are recognised by their sum.

    Args:
        model: The model.
        outputs: Its outputs for some examples, shape `(examples, outputs)`.
    """
    known = declared_ending(model)
    if known is not None:
        return known
    sums = outputs.sum(axis=-1, dtype=np.float64)
    one = outputs.shape[-1] > 1 and outputs.min() >= 0 and np.abs(sums - 1).max() < SUM_OF_PROBABILITIES
    return "softmax" if one else "logits"


def as_logits(outputs: np.ndarray, kind: Ending, *, classes: int) -> np.ndarray:
    """Returns logits of shape `(examples, classes)` whose softmax is the probabilities that the model stands for.

    Args:
        outputs: Shape `(examples, classes)`, or `(examples, 1)` of two classes: those of the second one.
        kind: What they are, as `ending` returns it.
        classes: Number of classes.
    """
    outputs = outputs.astype(np.float64)
    least = np.finfo(np.float32).tiny
    if outputs.shape[-1] == 1 and classes == 2:
        if kind == "logits":
            return np.concatenate([np.zeros_like(outputs), outputs], axis=-1)
        outputs = np.concatenate([1 - outputs, outputs], axis=-1)
    return outputs if kind == "logits" else np.log(np.maximum(outputs, least))


def declared_ending(model: Any) -> Ending | None:
    """Returns what the last layer of a graph outputs; None if that is unknown."""
    if not isinstance(model, keras.Model):
        return getattr(model, "ending", None)  # an exported model, which was asked when it was written
    if not getattr(model, "outputs", None):
        return None
    operation = producer(model.outputs[0]).operation
    if isinstance(operation, keras.Model):
        return declared_ending(operation)
    if isinstance(operation, keras.layers.Softmax) or type(operation).__name__ in ("Softmax", "Sigmoid"):
        return "sigmoid" if type(operation).__name__ == "Sigmoid" else "softmax"
    if not isinstance(operation, (keras.layers.Dense, keras.layers.Activation)):
        return None
    if operation.activation is keras.activations.softmax:
        return "softmax"
    if operation.activation is keras.activations.sigmoid:
        return "sigmoid"
    return "logits" if operation.activation in (None, keras.activations.linear) else None
