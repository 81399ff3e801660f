from __future__ import annotations

import math

import numpy as np
import pytest
from keras import ops

from contract import assert_close
from keras_residual.xray.quantities.gradients import gradient_norm, gradient_spread, ratio_of_ends, slope
from keras_residual.xray.quantities.numerics import scaled_norm

G = np.random.default_rng(0).normal(size=(3, 4, 2, 5)).astype("float32")


def by_sample(gradient: np.ndarray) -> list[float]:
    return [math.sqrt(sum(float(entry) ** 2 for entry in sample.flat)) for sample in gradient]


def test_the_norm_is_the_mean_over_the_samples_of_the_gradient_of_their_own_loss() -> None:
    norms = by_sample(G)
    assert_close(gradient_norm(ops.convert_to_tensor(G)), np.float32(sum(norms) / 3 * 3))


def test_axes_before_the_batch_stay() -> None:
    expected = np.array([np.mean(by_sample(block)) * 4 for block in G], "float32")
    assert_close(gradient_norm(ops.convert_to_tensor(G), batch_axis=1), expected)


def test_the_spread_is_the_deviation_over_the_mean() -> None:
    norms = np.array(by_sample(G))
    assert_close(gradient_spread(ops.convert_to_tensor(G)), np.float32(norms.std() / norms.mean()))
    assert float(gradient_spread(ops.zeros((3, 2)))) == 0


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_a_norm_whose_square_no_float32_holds(size: float) -> None:
    x = (np.array([[3.0, 4.0], [0.0, 0.0]]) * size).astype("float32")
    found = scaled_norm(ops.convert_to_tensor(x), 1)
    np.testing.assert_allclose(ops.convert_to_numpy(found), [5 * size, 0], rtol=1e-6)
    assert_close(scaled_norm(ops.convert_to_tensor(np.float32(-2.0))), np.float32(2.0))


@pytest.mark.any_backend
def test_ratio_and_slope() -> None:
    norms = [8.0, 4.0, 2.0, 1.0]
    assert ratio_of_ends(norms) == 8
    assert slope(norms) == pytest.approx(-math.log(2))
    assert slope([8.0, 0.0, 2.0, math.inf]) == pytest.approx(-math.log(2))
    assert math.isnan(slope([1.0]))
    assert math.isnan(ratio_of_ends([1.0]))
    assert math.isnan(ratio_of_ends([1.0, 0.0]))
