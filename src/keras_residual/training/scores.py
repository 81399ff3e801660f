"""How good answers are, from the model's outputs, in double precision: the same numbers for train and evaluate."""

from __future__ import annotations

import numpy as np

from keras_residual import _optional

# An area under the curve is computed class by class.
MOST_CLASSES_WITH_AUC = 100

SHARES = frozenset({"accuracy", "val_accuracy", "test_accuracy", "test_majority", "test_precision", "test_recall"})
"""Numbers of a run that are shares: fractions in files, percent for people."""


def percent(share: float) -> str:
    """Returns a share as people read it, for example "98.61 %"."""
    return f"{100 * share:.2f} %"


def score(outputs: np.ndarray, y: np.ndarray, *, classes: int) -> dict[str, float]:
    """Returns the scores of a test.

    For classes `test_loss` (cross-entropy in nats), `test_accuracy`, `test_majority` (the accuracy of always answering
    the class that the test has most of), `test_precision` and `test_recall` (means over the classes that are true or
    answered; a class that is never answered has precision 0), and `test_auc`: the area under the ROC curve, of the
    second of two classes, else the mean over the classes of each against the rest. It is left out where the examples
    are all of one class, and of more than 100 classes.

    For numbers `test_loss` (mean squared error, in the square of the target's unit), `test_rmse` and `test_mae` (in the
    target's unit) and `test_r2`, which is left out where the target does not vary: there is no variance to explain.

    Where an output is no number, neither are the loss and the accuracy or `test_rmse`, and there is nothing else.

    Args:
        outputs: Logits of shape `(examples, classes)`, or numbers of shape `(examples, 1)`.
        y: Class indices, or numbers, of shape `(examples,)`.
        classes: Number of classes; 0 for numbers.
    """
    if not np.isfinite(outputs).all():
        return dict.fromkeys(("test_loss", "test_accuracy") if classes else ("test_loss", "test_rmse"), float("nan"))
    metrics = _optional.require("sklearn.metrics", extra="train")
    if not classes:
        answers = outputs[:, 0].astype(np.float64)
        error = float(metrics.mean_squared_error(y, answers))
        mae = float(metrics.mean_absolute_error(y, answers))
        found = {"test_loss": error, "test_rmse": error**0.5, "test_mae": mae}
        return found | ({"test_r2": float(metrics.r2_score(y, answers))} if np.ptp(y) > 0 else {})
    chances = log_probabilities(outputs)
    answers = np.argmax(chances, axis=-1)
    average = {"average": "macro", "zero_division": 0}
    found = {
        "test_loss": float(-np.mean(chances[np.arange(len(y)), y])),
        "test_accuracy": float(np.mean(answers == y)),
        "test_majority": float(np.bincount(y).max() / len(y)),
        "test_precision": float(metrics.precision_score(y, answers, **average)),
        "test_recall": float(metrics.recall_score(y, answers, **average)),
    }
    present = np.unique(y)
    if len(present) > 1 and classes <= MOST_CLASSES_WITH_AUC:
        against_the_rest = [1] if classes == 2 else present
        areas = [metrics.roc_auc_score(y == index, chances[:, index]) for index in against_the_rest]
        found["test_auc"] = float(np.mean(areas))
    return found


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Returns the logarithm of the softmax over the last axis, in float64."""
    shifted = logits.astype(np.float64) - np.max(logits, axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
