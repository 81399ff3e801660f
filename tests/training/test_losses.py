"""Smoothed and binary cross-entropy of labels and of shares: PyTorch's numbers on every backend."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import torch

from keras_residual.training.losses import Crossentropy, accuracy, crossentropy

RNG = np.random.default_rng(0)
LOGITS = (RNG.normal(size=(6, 5)) * 4).astype("float32")
LABELS = RNG.integers(0, 5, 6)
SHARES = RNG.dirichlet(np.ones(5), 6).astype("float32")


def of_torch(kind: str, smoothing: float, targets: np.ndarray) -> float:
    logits, shares = (
        torch.tensor(LOGITS),
        torch.tensor(np.eye(5, dtype="float32")[targets] if targets.ndim == 1 else targets),
    )
    if kind == "softmax":
        return float(torch.nn.functional.cross_entropy(logits, shares, label_smoothing=smoothing))
    smoothed = shares * (1 - smoothing) + smoothing / 5
    return float(torch.nn.functional.binary_cross_entropy_with_logits(logits, smoothed))


@pytest.mark.every
@pytest.mark.parametrize("kind", ["softmax", "binary"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_torch(kind: str, smoothing: float) -> None:
    loss = keras.losses.deserialize(keras.losses.serialize(Crossentropy(kind, smoothing)))
    for targets in (LABELS, LABELS[:, None], SHARES):
        expected = of_torch(kind, smoothing, targets.reshape(6) if targets.size == 6 else targets)
        assert float(loss(targets, LOGITS)) == pytest.approx(expected, rel=1e-6)


def test_weights_of_examples_count() -> None:
    loss = Crossentropy(label_smoothing=0.1)
    weights = np.array([1, 1, 1, 0, 0, 0], "float32")
    alone = float(loss(LABELS[:3], LOGITS[:3]))
    assert float(loss(LABELS, LOGITS, sample_weight=weights)) == pytest.approx(alone / 2, rel=1e-6)


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[1e4, -1e4]], "float32")
    for kind in ("softmax", "binary"):
        assert np.isfinite(float(Crossentropy(kind)(np.array([1]), logits)))


def test_metrics_take_labels_and_shares() -> None:
    right = LOGITS.argmax(axis=1)
    for labels in (right, right[:, None], np.eye(5)[right]):
        assert keras.ops.convert_to_numpy(accuracy(labels, keras.ops.convert_to_tensor(LOGITS))).tolist() == [1] * 6
    found = keras.ops.convert_to_numpy(crossentropy(LABELS[:, None], keras.ops.convert_to_tensor(LOGITS)))
    assert found.mean() == pytest.approx(of_torch("softmax", 0.0, LABELS), rel=1e-6)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "binry"}, "Crossentropy: unknown name for `kind`: 'binry'. Did you mean 'binary'?"),
        (
            {"label_smoothing": 1.0},
            "Crossentropy: `label_smoothing` must be a number in [0, 1), but received 1.0 (float).",
        ),
    ],
)
def test_a_wrong_argument_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Crossentropy(**arguments)
