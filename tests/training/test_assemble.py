"""What is around the network: mean and deviation in double precision, and the same in the file of the model."""

from __future__ import annotations

from math import fsum

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_residual.data import Dataset, lazy
from keras_residual.training.assemble import assemble, moments, standardised, take_apart
from keras_residual.training.config import ModelConfig
from keras_residual.training.saved import raw_outputs

any_backend = pytest.mark.any_backend


@any_backend
@given(st.integers(0, 2**32), st.sampled_from([0.0, 1.7e9, -1e15]), st.sampled_from([1e-9, 1.0, 1e6]))
def test_moments_are_those_of_exact_sums(seed, offset, spread):
    rng = np.random.default_rng(seed)
    x = offset + spread * rng.normal(size=(50, 2))
    rows = rng.permutation(50)[:31]
    mean, deviation = moments(x, rows)
    for column in range(2):
        values = x[rows, column].tolist()
        exact = fsum(values) / 31
        assert mean[column] == pytest.approx(exact, rel=1e-15, abs=8 * np.spacing(spread))
        variance = fsum((value - exact) ** 2 for value in values) / 31
        # Where numbers differ by little more than their own rounding, the rounding of the mean is part of it.
        assert deviation[column] == pytest.approx(variance**0.5 or 1, rel=1e-9, abs=4 * np.spacing(abs(offset)))


@any_backend
@pytest.mark.parametrize("value", [0.1, 1e300, -1.7e9, 1 / 3])
def test_a_column_of_one_number_does_not_vary(value):
    assert np.std(np.full(1000, 0.1)) > 0  # as NumPy has it
    mean, deviation = moments(np.full((1000, 1), value))
    assert (mean[0], deviation[0]) == (value, 1)


@any_backend
def test_pictures_are_looked_at_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr(lazy, "_CHUNK", 100)
    x = np.random.default_rng(0).integers(0, 256, (40, 5, 4, 3)).astype(np.uint8)
    mean, deviation = moments(x)
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(deviation, x.std((0, 1, 2)), rtol=1e-12)
    expected = (x - x.mean((0, 1, 2))) / x.std((0, 1, 2))
    np.testing.assert_allclose(standardised(x, mean, deviation), expected, rtol=1e-5, atol=1e-6)


def table(x, y):
    names = tuple(f"c{column}" for column in range(x.shape[1]))
    return Dataset("t", "table", "regression", x, y, x, y, (), names)


def test_the_file_of_a_model_keeps_the_precision_and_gives_the_same_answers(tmp_path):
    rng = np.random.default_rng(0)
    # In farad, in seconds since 1970, in metres; one that does not vary.
    x = rng.normal(size=(60, 4)) * [1e-12, 100, 1, 0] + [0, 1.7e9, 5, 0.1]
    y = rng.normal(size=60) * 1e-9 + 3
    built = assemble(ModelConfig(name="tabular_resnet", drop_path_rate=0.0), table(x, y), np.arange(60))
    built.raw.save(tmp_path / "model.keras")
    parts = take_apart(keras.saving.load_model(tmp_path / "model.keras"))
    np.testing.assert_allclose(parts.columns, built.columns, rtol=1e-12)
    assert (parts.target_mean, parts.target_scale) == (built.target_mean, built.target_scale)
    inputs = parts.inputs(x)
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs.std(0), [1, 1, 1, 0], atol=1e-5)
    answers = raw_outputs(built.raw, x)
    expected = built.answers(keras.ops.convert_to_numpy(built.network(inputs)))
    np.testing.assert_allclose(answers - 3, expected - 3, rtol=1e-4, atol=1e-12)
    assert answers.dtype == np.float64
    # By Keras alone it is the same but for the precision: here with times that 32-bit floats tell apart.
    x[:, 1] = 1.7e9 + 128 * rng.integers(0, 9, 60)
    alone = built.raw.predict(x, verbose=0)
    scale = max(np.abs(expected).max(), 1e-9)
    np.testing.assert_allclose(alone, raw_outputs(built.raw, x), atol=max(1e-3 * scale, 1e-6))


@any_backend
def test_a_column_that_varies_by_too_little_is_named():
    x = np.random.default_rng(0).normal(size=(9, 2)) * [1, 1e-25]
    with pytest.raises(
        ValueError, match=r"^Data 't': column 'c1' varies by \d\.\de-2\d, too little for the 32-bit floats"
    ):
        assemble(ModelConfig(name="tabular_resnet", drop_path_rate=0.0), table(x, x[:, 0]), np.arange(9))


@any_backend
def test_a_model_of_others_is_all_network():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    parts = take_apart(model)
    assert parts.network is model
    x = np.ones((2, 3))
    assert parts.inputs(x) is x
