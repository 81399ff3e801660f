"""Keras's optimizers on stacks: the same steps however blocks are executed, or a plain refusal; state moves along."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, optimizers

from contract import assert_close
from keras_residual import Residual, ResidualStack

X = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
Y = np.stack([X[:, 0], X[:, 1] * X[:, 2]], axis=1)


def block() -> Residual:
    branch = [
        layers.Dense(8, activation="tanh", name="in"),
        layers.BatchNormalization(name="norm"),
        layers.Dense(6, name="out"),
    ]
    return Residual(branch, norm="layer_norm", branch_scale="skip_init", name="residual")


def made(optimizer: Any, execution: str, depth: int = 3, seed: int = 3) -> keras.Model:
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6,))
    stack = ResidualStack(block(), depth, execution=execution, name="stack")
    model = keras.Model(inputs, layers.Dense(2, name="head")(stack(inputs)))
    model.compile(optimizer, "mse")
    return model


def weights_after(model: keras.Model, steps: int) -> dict[str, np.ndarray]:
    for _ in range(steps):
        model.train_on_batch(X, Y)
    return {**model.get_layer("stack").get_stacked_weights(), "head": model.get_layer("head").get_weights()[0]}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float = 1e-5) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        if name != "residual/in/bias":  # before a batch norm: nothing but rounding moves it
            assert_close(found[name], value, tolerance)


def without_decay_of_vectors() -> keras.Optimizer:
    optimizer = optimizers.AdamW(0.01, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


BY_KERNEL = {".*kernel": lambda: optimizers.Adam(0.01)}
ALIKE: dict[str, Callable[[], Any]] = {
    "clipnorm": lambda: optimizers.SGD(0.1, clipnorm=0.01),
    "clipnorm of a scaled loss": lambda: optimizers.SGD(0.1, clipnorm=0.01, loss_scale_factor=64.0),
    "clipnorm in a loss scale": lambda: optimizers.LossScaleOptimizer(optimizers.SGD(0.1, clipnorm=0.01)),
    "global_clipnorm": lambda: optimizers.Adam(0.01, global_clipnorm=0.01),
    "clipvalue": lambda: optimizers.SGD(0.1, clipvalue=0.001),
    "weight decay by names": without_decay_of_vectors,
    "ema": lambda: optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=2),
    "accumulation": lambda: optimizers.Adam(0.01, gradient_accumulation_steps=2),
    "by path": lambda: optimizers.MultiOptimizer(
        optimizers.OptimizerMap(optimizers.SGD(0.1), {path: make() for path, make in BY_KERNEL.items()})
    ),
    "SGD": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "RMSprop": lambda: optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "Adamax": lambda: optimizers.Adamax(0.01),
    "Nadam": lambda: optimizers.Nadam(0.01),
    "Adagrad": lambda: optimizers.Adagrad(0.1),
    "Adadelta": lambda: optimizers.Adadelta(1.0),
    "Ftrl": lambda: optimizers.Ftrl(0.1),
    "Lion": lambda: optimizers.Lion(0.001),
    "ScheduleFreeAdamW": lambda: optimizers.ScheduleFreeAdamW(0.01),
}


def compared(make: Callable[[], Any]) -> None:
    expected = weights_after(made(make(), "unrolled"), 3)
    assert_same(weights_after(made(make(), "scan"), 3), expected)


def test_clipnorm_clips_each_block_by_itself() -> None:
    compared(ALIKE["clipnorm"])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ALIKE if name != "clipnorm"])
def test_steps_do_not_depend_on_the_execution(name: str) -> None:
    compared(ALIKE[name])


class Centralised(optimizers.SGD):
    """Takes the mean of each gradient away, which is not element by element."""

    def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
        return super().apply([g - keras.ops.mean(g) for g in grads], trainable_variables)


class Halved(optimizers.SGD):
    """Is element by element and says so."""

    elementwise = True

    def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
        return super().apply([g / 2 for g in grads], trainable_variables)


def by_rank(variable: Any) -> Any:
    return optimizers.SGD(0.1) if len(variable.shape) == 2 else optimizers.Adam(0.01)


ELEMENTWISE = (
    "one that updates each entry of a weight by itself, such as AdamW, or says so by an attribute `elementwise`"
)
ALL_OR_NONE = "a MultiOptimizer that chooses the same optimizer for the weight of every block and for all in one"
REFUSED: dict[str, tuple[Callable[[], Any], str, str]] = {
    "Lamb": (optimizers.Lamb, ELEMENTWISE, "Lamb"),
    "Adafactor": (optimizers.Adafactor, ELEMENTWISE, "Adafactor"),
    "Muon": (optimizers.Muon, ELEMENTWISE, "Muon"),
    "of a user": (Centralised, ELEMENTWISE, "Centralised"),
    "in a loss scale": (lambda: optimizers.LossScaleOptimizer(optimizers.Lamb()), ELEMENTWISE, "Lamb"),
    "chosen": (
        lambda: optimizers.MultiOptimizer(
            optimizers.OptimizerMap(optimizers.SGD(0.1), {".*kernel": optimizers.Adafactor()})
        ),
        ELEMENTWISE,
        "Adafactor",
    ),
    "by the path of a block": (
        lambda: optimizers.MultiOptimizer(
            optimizers.OptimizerMap(optimizers.SGD(0.1), {".*block_1/.*": optimizers.Adam(0.01)})
        ),
        ALL_OR_NONE,
        "MultiOptimizer",
    ),
    "by rank": (lambda: optimizers.MultiOptimizer(by_rank), ALL_OR_NONE, "MultiOptimizer"),
    "clipnorm of what was accumulated": (
        lambda: optimizers.SGD(0.1, clipnorm=0.01, gradient_accumulation_steps=2),
        "one without `clipnorm` where it accumulates gradients, whose sum would be clipped for all blocks as one",
        "SGD",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_treat_all_blocks_as_one_is_refused(name: str) -> None:
    make, rule, received = REFUSED[name]
    made(make(), "unrolled").train_on_batch(X, Y)
    model = made(make(), "scan")
    before = [variable.numpy() for variable in model.trainable_variables]
    message = (
        f"ResidualStack 'stack': the optimizer must be {rule}, but received {received}, and a scanned stack has the "
        "weights of all its blocks in one. Take execution='unrolled' for the stack, or "
        "stack.with_execution('unrolled')."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        model.train_on_batch(X, Y)
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_an_optimizer_of_ones_own_may_say_that_it_is_elementwise() -> None:
    compared(lambda: Halved(0.2))


def test_a_model_that_only_predicts_may_have_an_optimizer_that_is_refused(tmp_path: Path) -> None:
    one, other = made(optimizers.Lamb(), "unrolled"), made(optimizers.Lamb(), "scan", seed=4)
    one.train_on_batch(X, Y)
    one.save_weights(tmp_path / "model.weights.h5")
    other.optimizer.build(other.trainable_variables)
    other.load_weights(tmp_path / "model.weights.h5")
    assert_close(other.predict(X, verbose=0), one.predict(X, verbose=0), 1e-5)


# --- State -----------------------------------------------------------------------------------------------------------

STATEFUL = {
    "Adam": lambda: optimizers.Adam(0.01, amsgrad=True),
    "moving averages": lambda: optimizers.SGD(0.1, momentum=0.9, use_ema=True, ema_overwrite_frequency=2),
    "accumulation": lambda: optimizers.Nadam(0.01, gradient_accumulation_steps=2),
    "loss scale": lambda: optimizers.LossScaleOptimizer(optimizers.Adam(0.01)),
    "by path": ALIKE["by path"],
}


@pytest.mark.slow
@pytest.mark.parametrize(("saved", "loaded"), [("scan", "unrolled"), ("unrolled", "scan"), ("unrolled", "unrolled")])
@pytest.mark.parametrize("name", STATEFUL)
def test_state_goes_from_one_execution_to_the_other(name: str, saved: str, loaded: str, tmp_path: Path) -> None:
    one, other = made(STATEFUL[name](), saved), made(STATEFUL[name](), loaded, seed=4)
    weights_after(one, 3)
    weights_after(other, 1)
    one.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    assert_same(weights_after(other, 3), weights_after(one, 3))


def test_a_file_of_before_loads_as_it_is(tmp_path: Path) -> None:
    """Keras numbers an optimizer's variables; so did this library, whose files then fit one execution."""
    from keras.src.optimizers.base_optimizer import BaseOptimizer

    one, other = (made(optimizers.Adam(0.01), "unrolled", seed=seed) for seed in (3, 4))
    weights_after(one, 2)
    weights_after(other, 1)
    numbered: dict[str, np.ndarray] = {}
    BaseOptimizer.save_own_variables.__wrapped__(one.optimizer, numbered)  # pyright: ignore[reportFunctionMemberAccess]
    other.optimizer.load_own_variables(numbered)
    for variable, value in zip(other.optimizer.variables, one.optimizer.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value.numpy())


def test_state_of_other_weights_is_not_loaded_and_that_is_said(tmp_path: Path) -> None:
    one, other = made(optimizers.Adam(0.01), "scan"), made(optimizers.Adam(0.01), "scan", depth=4)
    weights_after(one, 1)
    weights_after(other, 1)
    state: dict[str, np.ndarray] = {}
    one.optimizer.save_own_variables(state)
    before = [variable.numpy() for variable in other.optimizer.variables]
    message = "which starts anew: the saved one was of other weights"
    with pytest.warns(UserWarning, match=re.escape(message)):
        other.optimizer.load_own_variables(state)
    for variable, value in zip(other.optimizer.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


ELSEWHERE = """
import json, sys
import keras, numpy as np
import keras_residual

data, came, goes, after = sys.argv[1:]
x, y = np.load(data).values()
model = keras.saving.load_model(came)
stack = model.get_layer("stack")
for _ in range(2):
    model.train_on_batch(x, y)
model.save(goes)
for _ in range(2):
    model.train_on_batch(x, y)
np.savez(after, **{name.replace("/", "."): value for name, value in stack.get_stacked_weights().items()})
print(json.dumps([keras.backend.backend(), stack.execution]))
"""


@pytest.mark.slow
@pytest.mark.any_backend
def test_a_model_goes_on_exactly_on_another_backend_and_back(tmp_path: Path) -> None:
    here, there, after, data = (tmp_path / name for name in ("here.keras", "there.keras", "after.npz", "data.npz"))
    np.savez(data, x=X, y=Y)
    model = made(optimizers.Adam(0.01), "auto", depth=20)
    assert model.get_layer("stack").execution == "unrolled"
    weights_after(model, 2)
    model.save(here)
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *map(str, (data, here, there, after))],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == ["jax", "scan"]
    unbroken = weights_after(model, 2)
    back = keras.saving.load_model(there)
    assert back.get_layer("stack").execution == "unrolled"
    assert_same(weights_after(back, 0), unbroken, 1e-4)
    unbroken = weights_after(model, 2)
    assert_same(weights_after(back, 2), unbroken, 1e-4)
    with np.load(after) as found:
        assert_same(
            {name.replace(".", "/"): found[name] for name in found} | {"head": unbroken["head"]}, unbroken, 1e-4
        )
