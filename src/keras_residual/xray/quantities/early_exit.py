"""How well a linear classifier does at each depth."""

from __future__ import annotations

from typing import Any

import numpy as np

RIDGE = 1e-2


def probe_accuracy(features: Any, labels: Any, ridge: float = RIDGE) -> float:
    """Returns the accuracy of a ridge classifier on features, learned on the even samples and tried on the odd ones.

    Range: 0 to 1. Healthy: rises with depth; a flat tail is depth that may go. Cost: one forward pass, and a linear
    system a depth. A batch of some hundred samples is needed for a number that means something.

    Args:
        features: Array `(batch, channels)`; maps are averaged over their places before.
        labels: Whole numbers `(batch,)`.
        ridge: Weight of the penalty, as a part of the mean square of the features.

    Reference:
        Alain & Bengio, Understanding intermediate layers using linear classifier probes, 2016.
        https://arxiv.org/abs/1610.01644
    """
    x = np.asarray(features, "float64")
    y = np.asarray(labels).reshape(-1).astype(int)
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    targets = (y[:, None] == np.arange(y.max() + 1)).astype("float64")
    seen, unseen = slice(0, None, 2), slice(1, None, 2)
    inner = x[seen].T @ x[seen]
    inner += ridge * np.trace(inner) / len(inner) * np.eye(len(inner))
    weights = np.linalg.solve(inner, x[seen].T @ targets[seen])
    return float(((x[unseen] @ weights).argmax(axis=1) == y[unseen]).mean())
