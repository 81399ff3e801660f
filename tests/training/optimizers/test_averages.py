"""Means of weights: the formula, the weights left alone, saved and loaded, and the callback of `fit`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_residual import optimizers

X = np.random.default_rng(0).normal(size=(24, 5)).astype("float32")
Y = X[:, :2] * 2


def network(optimizer: Any, seed: int = 1) -> keras.Model:
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((5,))
    hidden = keras.layers.BatchNormalization()(keras.layers.Dense(4, name="first")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(hidden))
    model.compile(optimizer, "mse")
    return model


def weights(model: keras.Model) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable.value) for variable in model.trainable_variables]


def means(model: keras.Model) -> list[np.ndarray]:
    with optimizers.averaged(model):
        return weights(model)


@pytest.mark.parametrize(("every", "accumulated"), [(1, 1), (1, 2), (3, 1)])
def test_the_mean_is_that_of_the_formula_and_the_weights_are_left_alone(every: int, accumulated: int) -> None:
    def sgd() -> Any:
        return optimizers.SGD(0.05, 0.9, gradient_accumulation_steps=accumulated if accumulated > 1 else None)

    plain, model = network(sgd()), network(optimizers.Averaged(sgd(), decay=0.3, every=every))
    expected: list[np.ndarray] = []
    for step in range(1, 13):
        plain.train_on_batch(X, Y)
        model.train_on_batch(X, Y)
        taken, due = divmod(step, every * accumulated)
        if due == 0:
            t = taken - 1
            decay = min(0.3, (1 + t) / (10 + t)) if t else 0.0
            kept = expected or weights(plain)
            expected = [decay * mean + (1 - decay) * weight for mean, weight in zip(kept, weights(plain), strict=True)]
    for weight, other in zip(weights(model), weights(plain), strict=True):
        np.testing.assert_array_equal(weight, other)
    for mean, other in zip(means(model), expected, strict=True):
        np.testing.assert_allclose(mean, other, rtol=1e-5, atol=1e-6)


def test_fit_validates_the_means_and_goes_on_with_the_weights() -> None:
    seen: list[list[np.ndarray]] = []

    class Look(keras.callbacks.Callback):
        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            if keras.backend.backend() == "jax":
                self.model.jax_state_sync()
            seen.append(weights(self.model))

    def fitted(*callbacks: keras.callbacks.Callback) -> keras.Model:
        model = network(optimizers.Averaged(optimizers.SGD(0.05, 0.9), decay=0.9))
        quiet: Any = 0
        model.fit(X, Y, 8, 2, quiet, list(callbacks), validation_data=(X, Y), validation_batch_size=24, shuffle=False)
        return model

    model, plain = fitted(optimizers.EvaluateAverages(), Look()), fitted()
    for weight, other in zip(weights(model), weights(plain), strict=True):
        np.testing.assert_array_equal(weight, other)
    for mean, other in zip(means(model), seen[-1], strict=True):
        np.testing.assert_array_equal(mean, other)
    assert any(np.abs(mean - weight).max() > 1e-4 for mean, weight in zip(seen[-1], weights(model), strict=True))


def test_means_are_saved_and_loaded_with_the_optimizer(tmp_path: Path) -> None:
    model = network(optimizers.Averaged(optimizers.Lamb(0.01, weight_decay=0.02), decay=0.8))
    for _ in range(3):
        model.train_on_batch(X, Y)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    for each in (model, loaded):
        each.train_on_batch(X, Y)
    for mean, other in zip(means(loaded), means(model), strict=True):
        np.testing.assert_array_equal(mean, other)


def test_before_the_first_step_and_without_means_nothing_is_replaced() -> None:
    for optimizer in (optimizers.SGD(0.1), optimizers.Averaged(optimizers.SGD(0.1))):
        model = network(optimizer)
        for mean, weight in zip(means(model), weights(model), strict=True):
            np.testing.assert_array_equal(mean, weight)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decay": 1.0}, "Averaged: `decay` must be a number in [0, 1), but received 1.0 (float)."),
        ({"every": 0}, "Averaged: `every` must be a whole number of at least 1, but received 0 (int)."),
    ],
)
def test_a_number_out_of_its_range_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        optimizers.Averaged(optimizers.SGD(0.1), **arguments)
