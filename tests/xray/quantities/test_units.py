"""Dead and saturated units, and numbers that are none or too small."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_residual.xray.quantities.numerics import inf_share, nan_share, underflow_share
from keras_residual.xray.quantities.units import dead_units, saturated_units
from keras_residual.xray.quantities.weights import update_ratio


@pytest.mark.parametrize("axis", [-1, 1])
def test_a_unit_that_one_sample_activates_at_one_place_lives(axis: int) -> None:
    x = np.zeros((4, 3, 3, 5), "float32")
    x[3, 2, 0, 1] = 0.1
    expected = sum(all(v <= 0 for v in np.take(x, i, axis=axis).flat) for i in range(x.shape[axis]))
    assert float(dead_units(ops.convert_to_tensor(x), axis)) == expected < x.shape[axis]


@pytest.mark.parametrize(
    ("function", "derivative"), [("sigmoid", lambda a: 4 * a * (1 - a)), ("tanh", lambda a: 1 - a * a)]
)
def test_saturated_is_where_the_derivative_is_small(function: str, derivative) -> None:
    x = np.random.default_rng(0).normal(scale=4, size=(5, 7))
    a = 1 / (1 + np.exp(-x)) if function == "sigmoid" else np.tanh(x)
    expected = sum(derivative(v) < 0.1 for v in a.flat) / a.size
    assert 0.1 < expected < 0.9
    assert float(saturated_units(ops.convert_to_tensor(a.astype("float32")), function)) == pytest.approx(expected)


def test_shares_of_what_is_no_number() -> None:
    x = np.array([[np.nan, 1, np.inf, -np.inf], [0, 1, 2, 3]], "float32")
    tensor = ops.convert_to_tensor(x)
    assert (float(nan_share(tensor)), float(inf_share(tensor))) == (1 / 8, 2 / 8)
    assert ops.convert_to_numpy(inf_share(tensor, 1)).tolist() == [0.5, 0]


@pytest.mark.parametrize(("dtype", "expected"), [("float16", 0.75), ("bfloat16", 0.25), ("float32", 0.25)])
def test_what_is_too_small_depends_on_the_type(dtype: str, expected: float) -> None:
    x = ops.cast(ops.convert_to_tensor(np.array([0.0, 1e-6, -1e-5, 1e-3], "float32")), dtype)
    assert float(underflow_share(x)) == expected


@pytest.mark.any_backend
def test_the_first_step_of_an_optimizer() -> None:
    assert update_ratio("SGD", 0.1, 2.0, 4.0, 9, momentum=0.9) == pytest.approx(0.1 * 2 / 4 / 0.1)
    assert update_ratio("Adam", 0.1, 2.0, 4.0, 9) == pytest.approx(0.1 * 3 / 4)
    assert update_ratio("Mine", 0.1, 2.0, 4.0, 9) is None
    assert update_ratio("SGD", 0.1, 2.0, 0.0, 9) is None
