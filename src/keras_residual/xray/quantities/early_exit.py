"""How well a linear classifier does at each depth."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual._errors import bad_argument
from keras_residual.xray.quantities.chart import DepthChart
from keras_residual.xray.quantities.quantity import STREAMS_KEPT, Passes, Quantity

MOST_CLASSES = 10_000
"""Whole numbers above this are taken for no labels."""


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


def _add(look: Any, blocks: Any, model: Any) -> None:
    """Adds `early_exit`, the accuracy of a linear classifier behind it, to each block."""
    labels = np.asarray(ops.convert_to_numpy(look.given[1]))
    for block, features in zip(blocks, look.features(), strict=True):
        block["early_exit"] = None if features is None else probe_accuracy(_pooled(features), labels)


def _pooled(features: np.ndarray) -> np.ndarray:
    if features.ndim < 3:
        return features
    first = keras.config.image_data_format() == "channels_first" and features.ndim > 3
    return features.mean(axis=tuple(range(2, features.ndim) if first else range(1, features.ndim - 1)))


def _check_labels(name: str, y: Any) -> None:
    dtype = keras.backend.standardize_dtype(y.dtype) if hasattr(y, "dtype") else None
    if dtype is None or not dtype.startswith(("int", "uint")) or tuple(y.shape[1:]) not in ((), (1,)):
        received = dtype and f"{dtype} of shape {tuple(y.shape)}"
        raise bad_argument("xray", "y", f"labels, whole numbers of shape (batch,), for {name!r}", received)
    labels = np.asarray(ops.convert_to_numpy(y))
    if labels.min() < 0 or labels.max() >= MOST_CLASSES:
        rule, received = f"labels from 0 to {MOST_CLASSES - 1}, for {name!r}", (int(labels.min()), int(labels.max()))
        raise bad_argument("xray", "y", rule, received, "The numbers are the smallest and the largest label.")


EARLY_EXIT = Quantity(
    key="early_exit",
    definition="accuracy of a linear classifier at each depth",
    of="request",
    by=_add,
    cost=Passes(forward=1, beside=STREAMS_KEPT),
    check=_check_labels,
    label="right answers from here",
    percent=True,
    chart=DepthChart(
        title="From which depth on is the answer known?",
        words="How many examples a simple classifier gets right that sees nothing but what comes out of this block. "
        "It should climb to the right. Where it is flat, the blocks add nothing to the answer.",
        axis="right answers",
        domain=(0.0, 1.0),
    ),
)
