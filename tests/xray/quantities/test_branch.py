from __future__ import annotations

import math

import numpy as np
import pytest
from keras import ops

from contract import assert_close
from keras_residual.xray.quantities.branch import branch_cosine, branch_ratio, shares

RNG = np.random.default_rng(0)
X, F = (RNG.normal(size=(4, 6)).astype("float32") for _ in range(2))


def rms(x: np.ndarray) -> float:
    return math.sqrt(sum(float(v) ** 2 for v in x.flat) / x.size)


def test_ratio_and_cosine() -> None:
    received, added = ops.convert_to_tensor(X), ops.convert_to_tensor(F)
    dot = sum(float(a) * float(b) for a, b in zip(X.flat, F.flat, strict=True)) / X.size
    assert_close(branch_ratio(received, added), np.float32(rms(F) / rms(X)))
    assert_close(branch_cosine(received, added), np.float32(dot / (rms(X) * rms(F))))
    assert_close(branch_cosine(received, -3.0 * received), np.float32(-1.0))


def test_of_nothing() -> None:
    zeros = ops.zeros((4, 6))
    for received, added in ((zeros, zeros), (ops.convert_to_tensor(X), zeros)):
        assert float(branch_ratio(received, added)) == float(branch_cosine(received, added)) == 0


@pytest.mark.any_backend
def test_the_shares_add_up_to_one() -> None:
    assert shares([1.0, 3.0]) == [0.25, 0.75]
    assert shares([0.0, 0.0]) == [0.0, 0.0]
