"""The papers' optimizers: saved and loaded, the same however blocks are executed, and what they refuse."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_residual import Residual, ResidualStack, optimizers

X = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
Y = np.stack([X[:, 0], X[:, 1] * X[:, 2]], axis=1)
MADE: dict[str, Callable[[], Any]] = {
    "sgd": lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "sgdw": lambda: optimizers.SGD(0.05, momentum=0.9, weight_decay=0.01, decoupled=True),
    "lamb": lambda: optimizers.Lamb(0.02, beta_1=0.8, weight_decay=0.05, global_clipnorm=0.5),
    "lars": lambda: optimizers.Lars(0.5, weight_decay=0.01, trust=0.1),
    "means": lambda: optimizers.Averaged(optimizers.Lars(0.5, weight_decay=0.01, trust=0.1), decay=0.9),
    "lamb of a sum": lambda: optimizers.Lamb(0.02, weight_decay=0.05, gradient_accumulation_steps=2),
}


def network(optimizer: Any, execution: str, seed: int = 3) -> keras.Model:
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6,))
    branch = [keras.layers.Dense(8, activation="tanh", name="in"), keras.layers.Dense(6, name="out")]
    block = Residual(branch, norm="layer_norm", branch_scale="skip_init", name="residual")
    stack = ResidualStack(block, 3, execution=execution, name="stack")
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(stack(inputs)))
    model.compile(optimizer, "mse")
    return model


def trained(model: keras.Model, steps: int) -> dict[str, np.ndarray]:
    for _ in range(steps):
        model.train_on_batch(X, Y)
    return {**model.get_layer("stack").get_stacked_weights(), "head": model.get_layer("head").get_weights()[0]}


# A program for each: what has norms of its own always, the rest where there is time.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "means" else pytest.mark.slow) for name in MADE]
)
def test_scanned_and_unrolled_stacks_get_the_same_steps_and_state(name: str, tmp_path: Path) -> None:
    unrolled, scanned = network(MADE[name](), "unrolled"), network(MADE[name](), "scan")
    for model, other in ((unrolled, scanned), (scanned, unrolled)):
        expected, found = trained(model, 3), trained(other, 3)
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, rtol=0, atol=1e-5 * max(1e-2, np.abs(value).max()))
        model.save_weights(tmp_path / "one.weights.h5")
        other.load_weights(tmp_path / "one.weights.h5")


@pytest.mark.parametrize("name", MADE)
def test_a_saved_model_goes_on_with_the_same_steps(name: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    model.compile(MADE[name](), "mse")
    for _ in range(3):
        model.train_on_batch(X, Y)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is type(model.optimizer)
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    for each in (model, loaded):
        each.train_on_batch(X, Y)
    for value, other in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(value, other)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optimizers.SGD(momentum=1.0), "SGD: `momentum` must be a number in [0, 1), but received 1.0 (float)."),
        (
            lambda: optimizers.SGD(nesterov=True),
            "SGD: `momentum` must be above 0 where `nesterov` is true, but received 0.0 (float).",
        ),
        (
            lambda: optimizers.SGD(weight_decay=-1e-4),
            "SGD: `weight_decay` must be a number of at least 0, but received -0.0001",
        ),
        (
            lambda: optimizers.Lars(momentum=-0.1),
            "Lars: `momentum` must be a number in [0, 1), but received -0.1 (float).",
        ),
        (lambda: optimizers.Lars(trust=0.0), "Lars: `trust` must be a number above 0, but received 0.0 (float)."),
        (lambda: optimizers.Lamb(beta_2=1.0), "Lamb: `beta_2` must be a number in [0, 1), but received 1.0 (float)."),
        (lambda: optimizers.Lamb(epsilon=0.0), "Lamb: `epsilon` must be a number above 0, but received 0.0 (float)."),
        (
            lambda: optimizers.schedules.Piecewise([("cosine", 5, 0.1), ("linear", 5, 0.0)]),
            "Piecewise: `pieces` must be one or more with ends that rise from above 0, but received [5, 5] (list).",
        ),
        (
            lambda: optimizers.schedules.Piecewise([("cosin", 5, 0.1)]),
            "Piecewise: unknown name for `pieces`: 'cosin'. Did you mean 'cosine'?",
        ),
        (
            lambda: optimizers.schedules.linear(0.1, 5, every=0),
            "Piecewise: `every` must be a whole number of at least 1, but received 0",
        ),
        (
            lambda: optimizers.Lamb(weight_decay=math.nan),
            "Lamb: `weight_decay` must be a number of at least 0, but received nan",
        ),
    ],
)
def test_a_number_out_of_its_range_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@pytest.mark.any_backend
@pytest.mark.parametrize("warmup", [0, 1, 4, 10])
def test_a_training_of_few_steps_has_a_rate_at_each(warmup: int) -> None:
    for make in (optimizers.schedules.cosine, optimizers.schedules.linear, optimizers.schedules.one_cycle):
        schedule = make(0.1, 10, warmup=warmup)
        rates = [float(schedule(step)) for step in range(10)]
        assert max(rates) <= 0.1 + 1e-7
        assert min(rates) >= 0
    steps = optimizers.schedules.step_decay(0.1, 10, [2, 4], warmup=warmup, start=1.0)
    assert float(steps(9)) == pytest.approx(0.1 if warmup == 10 else 0.001)
