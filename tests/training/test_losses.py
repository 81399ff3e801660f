"""Smoothed and binary cross-entropy of labels and of shares: PyTorch's numbers on every backend."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import torch

from keras_residual.data import Dataset
from keras_residual.training.config import TrainConfig
from keras_residual.training.defaults import resolve
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


@pytest.mark.parametrize("kind", ["softmax", "binary"])
def test_weights_of_classes_multiply_the_terms_of_their_classes(kind):
    logits = np.array([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3]], "float32")
    weights = [0.5, 2.0, 3.0]
    loss = Crossentropy(kind, 0.1, weights, reduction=None)(np.array([1, 2]), logits)
    found = keras.ops.convert_to_numpy(loss)
    t = 0.9 * np.eye(3)[[1, 2]] + 0.1 / 3
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    s = 1 / (1 + np.exp(-logits))
    terms = -t * np.log(p) if kind == "softmax" else -(t * np.log(s) + (1 - t) * np.log(1 - s)) / 3
    np.testing.assert_allclose(found, (weights * terms).sum(-1), rtol=1e-5)


@pytest.mark.any_backend
def test_weights_of_classes_are_balanced_or_named_or_refused():
    x, y = np.zeros((8, 4, 4, 1), np.uint8), np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int32)
    data = Dataset("d", "pictures", "classification", x, y, x, y, ("cat", "dog"), ())

    def settled(*settings):
        return resolve(TrainConfig(batch_size=4).with_overrides(settings), data, examples=8).loss.class_weights

    assert settled("loss.class_weights=balanced") == ("cat=0.666667", "dog=2")
    assert settled('loss.class_weights=["dog=3"]') == ("cat=1", "dog=3")
    assert settled() == ()
    with pytest.raises(ValueError, match=re.escape("unknown name for `loss.class_weights`: 'cow'")):
        settled('loss.class_weights=["cow=3"]')
    with pytest.raises(ValueError, match="or NAME=NUMBER with numbers above 0"):
        settled('loss.class_weights=["dog=-3"]')
