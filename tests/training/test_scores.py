"""The scores against slow, obvious ones."""

import math

import numpy as np
import pytest

from keras_residual.training.scores import confusion, log_probabilities, score

pytestmark = pytest.mark.any_backend


def test_classes():
    logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], np.float32)
    y = np.array([0, 1, 1], np.int32)
    slow = -sum(
        math.log(math.exp(row[index]) / sum(math.exp(value) for value in row))
        for row, index in zip(logits.tolist(), y.tolist(), strict=True)
    )
    found = score(logits, y, classes=2)
    assert found["test_loss"] == pytest.approx(slow / 3, rel=1e-12)
    assert found["test_accuracy"] == pytest.approx(2 / 3)
    assert list(found) == ["test_loss", "test_accuracy"]
    assert confusion(logits, y, classes=2).tolist() == [[1, 0], [1, 1]]


def test_logits_beyond_what_exp_can_hold():
    assert log_probabilities(np.array([[1e4, 0.0]])).tolist() == [[0.0, -1e4]]


def test_numbers():
    found = score(np.array([[1.0], [2.0], [5.0]], np.float32), np.array([1, 3, 5], np.float32), classes=0)
    assert found == {
        "test_loss": pytest.approx(1 / 3),
        "test_rmse": pytest.approx(math.sqrt(1 / 3)),
        "test_r2": pytest.approx(1 - (1 / 3) / (8 / 3)),
    }


def test_numbers_without_variance():
    y = np.array([2.0], np.float32)
    assert score(np.array([[2.0]]), y, classes=0)["test_r2"] == 1
    assert score(np.array([[3.0]]), y, classes=0)["test_r2"] == 0
