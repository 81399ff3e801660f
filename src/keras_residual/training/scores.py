"""How good answers are, from the model's raw outputs, in double precision: the same numbers for train and evaluate."""

from __future__ import annotations

import numpy as np


def score(outputs: np.ndarray, y: np.ndarray, *, classes: int) -> dict[str, float]:
    """Returns `test_loss` and `test_accuracy` for classes, `test_loss`, `test_rmse` and `test_r2` for numbers.

    Args:
        outputs: Logits of shape `(examples, classes)`, or numbers of shape `(examples, 1)`.
        y: Class indices, or numbers, of shape `(examples,)`.
        classes: Number of classes; 0 for numbers.
    """
    if classes:
        chances = log_probabilities(outputs)
        return {
            "test_loss": float(-np.mean(chances[np.arange(len(y)), y])),
            "test_accuracy": float(np.mean(np.argmax(chances, axis=-1) == y)),
        }
    truth, answers = y.astype(np.float64), outputs[:, 0].astype(np.float64)
    error = float(np.mean((answers - truth) ** 2))
    variance = float(np.var(truth))
    # One test example, or equal ones, have no variance to be explained: 1 for perfect answers, else 0.
    r2 = 1 - error / variance if variance else float(error == 0)
    return {"test_loss": error, "test_rmse": error**0.5, "test_r2": r2}


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Returns the logarithm of the softmax over the last axis, in float64."""
    shifted = logits.astype(np.float64) - np.max(logits, axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


def confusion(outputs: np.ndarray, y: np.ndarray, *, classes: int) -> np.ndarray:
    """Returns counts of shape `(classes, classes)`: row the true class, column the answer."""
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (y, np.argmax(outputs, axis=-1)), 1)
    return counts
