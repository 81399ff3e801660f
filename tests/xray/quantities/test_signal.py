from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from contract import assert_close
from keras_residual.xray.quantities.signal import power, sample_cosine, squared_mean, variance

X = np.random.default_rng(0).normal(1.0, 2.0, size=(4, 3, 5, 6)).astype("float32")


def channels(x: np.ndarray, axis: int) -> list[np.ndarray]:
    return [np.take(x, index, axis=axis).ravel() for index in range(x.shape[axis])]


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("x", [X, X[:, :, 0, 0]], ids=["maps", "vectors"])
def test_mean_and_variance_are_taken_channel_by_channel(x: np.ndarray, axis: int) -> None:
    each = channels(x, axis)
    tensor = ops.convert_to_tensor(x)
    assert_close(squared_mean(tensor, axis), np.float32(np.mean([values.mean() ** 2 for values in each])), 1e-5)
    assert_close(variance(tensor, axis), np.float32(np.mean([values.var() for values in each])), 1e-5)


def test_power_in_half_precision_does_not_overflow() -> None:
    x = np.full((2, 2), 300.0, "float16")
    assert_close(power(ops.convert_to_tensor(x)), np.float32(90000.0))
    assert_close(power(ops.convert_to_tensor(X)), np.float32(sum(float(v) ** 2 for v in X.flat) / X.size), 1e-5)


X = (np.random.default_rng(0).normal(size=(5, 3, 4)) + 0.5).astype("float32")


def test_it_is_the_mean_over_the_pairs() -> None:
    flat = X.reshape(5, -1).astype("float64")
    pairs = [(a, b) for a in range(5) for b in range(5) if a != b]
    cosines = [flat[a] @ flat[b] / np.linalg.norm(flat[a]) / np.linalg.norm(flat[b]) for a, b in pairs]
    assert_close(sample_cosine(ops.convert_to_tensor(X)), np.float32(np.mean(cosines)))
    assert_close(sample_cosine(ops.convert_to_tensor(X * np.float32(1e25))), np.float32(np.mean(cosines)))


def test_of_one_sample_and_of_nothing() -> None:
    assert float(sample_cosine(ops.ones((1, 4)))) == 0
    assert float(sample_cosine(ops.zeros((3, 4)))) == 0
