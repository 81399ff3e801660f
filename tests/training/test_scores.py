"""The scores against slow, obvious ones."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_residual.training.scores import log_probabilities, score

pytestmark = pytest.mark.any_backend


def test_classes():
    logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], np.float32)
    y = np.array([0, 1, 1], np.int32)
    slow = -sum(
        math.log(math.exp(row[index]) / sum(math.exp(value) for value in row))
        for row, index in zip(logits.tolist(), y.tolist(), strict=True)
    )
    assert score(logits, y, classes=2) == pytest.approx(
        {
            "test_loss": slow / 3,
            "test_accuracy": 2 / 3,
            "test_majority": 2 / 3,
            "test_precision": (1 / 2 + 1) / 2,
            "test_recall": (1 + 1 / 2) / 2,
            "test_auc": 1 / 2,  # of the two pairs, one is in order
        },
        rel=1e-12,
    )


@given(st.integers(0, 2**32), st.integers(2, 5), st.integers(1, 30))
def test_the_scores_of_classes_are_what_counting_gives(seed, classes, examples):
    rng = np.random.default_rng(seed)
    # Halves make equal outputs, of which the area counts half.
    logits, y = rng.integers(-4, 5, (examples, classes)) / 2, rng.integers(0, classes, examples)
    answers = logits.argmax(-1)
    found = score(logits, y, classes=classes)
    seen = sorted({*y, *answers})
    right = {index: np.sum((y == index) & (answers == index)) for index in seen}
    precision = np.mean([right[index] / max(1, np.sum(answers == index)) for index in seen])
    recall = np.mean([right[index] / max(1, np.sum(y == index)) for index in seen])
    assert (found["test_precision"], found["test_recall"]) == (pytest.approx(precision), pytest.approx(recall))
    assert found["test_majority"] == max(np.mean(y == index) for index in seen)
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)

    def area(index):
        inside, outside = chances[y == index, index], chances[y != index, index]
        pairs = np.sign(np.round(inside[:, None] - outside, 12))
        return np.mean(pairs / 2 + 1 / 2)

    present = set(y)
    if len(present) == 1:
        assert "test_auc" not in found
    else:
        expected = area(1) if classes == 2 else np.mean([area(index) for index in present])
        assert found["test_auc"] == pytest.approx(expected)


def test_a_class_that_no_example_has_takes_nothing_away():
    logits, y = np.eye(3)[[0, 1, 0]] * 9, np.array([0, 1, 0])
    found = score(logits, y, classes=3)
    assert [found[f"test_{name}"] for name in ("accuracy", "precision", "recall", "auc")] == [1, 1, 1, 1]


def test_logits_beyond_what_exp_can_hold():
    assert log_probabilities(np.array([[1e4, 0.0]])).tolist() == [[0.0, -1e4]]


def test_numbers():
    found = score(np.array([[1.0], [2.0], [5.0]], np.float32), np.array([1.0, 3, 5]), classes=0)
    assert found == {
        "test_loss": pytest.approx(1 / 3),
        "test_rmse": pytest.approx(math.sqrt(1 / 3)),
        "test_mae": pytest.approx(1 / 3),
        "test_r2": pytest.approx(1 - (1 / 3) / (8 / 3)),
    }


def test_numbers_are_scored_in_double_precision():
    y = 1.7e9 + np.arange(10.0)
    found = score((y + 0.5)[:, None], y, classes=0)
    assert found["test_rmse"] == pytest.approx(0.5, rel=1e-9)
    assert found["test_r2"] == pytest.approx(1 - 0.25 / np.var(np.arange(10)), rel=1e-6)


@pytest.mark.parametrize("y", [[2.0], [2.0, 2.0], [1e9] * 5])
@pytest.mark.parametrize("off", [0.0, 1.0])
def test_numbers_without_variance_have_no_r2(y, off):
    y = np.array(y)
    assert score(y[:, None] + off, y, classes=0) == {"test_loss": off, "test_rmse": off, "test_mae": off}


@pytest.mark.parametrize(("classes", "key"), [(2, "test_accuracy"), (0, "test_rmse")])
def test_outputs_that_are_no_number_have_no_score(classes, key):
    outputs = np.full((3, max(1, classes)), np.nan)
    found = score(outputs, np.zeros(3, int), classes=classes)
    assert list(found) == ["test_loss", key]
    assert all(math.isnan(value) for value in found.values())
