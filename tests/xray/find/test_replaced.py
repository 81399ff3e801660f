"""What an X-ray replaces for a while: X-rays in several threads wait for each other, and no other thread sees it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from contract import assert_close, to_numpy
from keras_residual import Residual, ResidualStack
from keras_residual.xray import xray

X = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
INSIDE: list[int] = []
TOGETHER: list[int] = []


class Slow(layers.Layer):
    """Notes how many threads are in its `call`."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(6)

    def build(self, shape: Any) -> None:
        self.dense.build(shape)

    def call(self, inputs: Any) -> Any:
        INSIDE.append(threading.get_ident())
        time.sleep(0.02)
        TOGETHER.append(len(set(INSIDE)))
        INSIDE.remove(threading.get_ident())
        return inputs + self.dense(inputs)


def replaced() -> list[Any]:
    kinds = (keras.KerasTensor, *keras.Variable.__mro__[:-1])
    return [dict(vars(kind)) for kind in kinds]


def test_two_threads() -> None:
    models = [keras.Sequential([keras.Input((6,)), Slow()]) for _ in range(2)]
    before = replaced()
    TOGETHER.clear()
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda model: xray(model, X), models))
    assert max(TOGETHER) == 1
    assert replaced() == before
    assert [block["kind"] for report in reports for block in report.blocks] == ["add", "add"]


# --- A thread that has nothing to do with it -------------------------------------------------------------------------


class Interruption:
    """An activation that lets another thread do something in the middle of each call."""

    __name__ = "interruption"

    def __init__(self) -> None:
        self.meanwhile: Callable[[], Any] | None = None

    def __call__(self, x: Any) -> Any:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            with ThreadPoolExecutor(1) as other:
                other.submit(meanwhile).result()
            self.meanwhile = meanwhile
        return ops.tanh(x)


class OfOthers(layers.Layer):
    """A connection in a `call` that is drawn as a graph."""

    def __init__(self, activation: Any) -> None:
        super().__init__()
        self.dense, self.activation = layers.Dense(6), activation
        self.factor = keras.Variable(np.ones(6, "float32"))

    def build(self, shape: Any) -> None:
        self.dense.build(shape)

    def call(self, inputs: Any) -> Any:
        return inputs + self.factor * self.activation(self.dense(inputs))


def interrupted_net() -> tuple[keras.Model, Interruption]:
    keras.utils.set_random_seed(0)
    interruption = Interruption()
    inputs = keras.Input((6,))
    x = OfOthers(interruption)(inputs)
    x = Residual(layers.Dense(6, activation=interruption), norm="layer_norm")(x)
    x = ResidualStack(lambda index: Residual(layers.Dense(6, activation=interruption)), depth=3)(x)
    x = layers.Add()([x, layers.Dense(6, activation="relu")(x)])
    return keras.Model(inputs, layers.Dense(2)(x)), interruption


def test_a_thread_that_calls_the_same_model_is_neither_changed_nor_recorded() -> None:
    model, interruption = interrupted_net()
    expected, report = to_numpy(model(X)), xray(model, X)
    answers: list[np.ndarray] = []
    interruption.meanwhile = lambda: answers.append(to_numpy(model(2 * X, training=False)))
    disturbed = xray(model, X)
    interruption.meanwhile = None
    assert answers
    for answer in answers:
        assert_close(answer, to_numpy(model(2 * X, training=False)))
    names = [block["name"] for block in report.blocks]
    assert [block["name"] for block in disturbed.blocks] == names
    for key in ("gradient_norm", "variance", "dead_units"):
        column, other = ([block[key] for block in found.blocks] for found in (report, disturbed))
        np.testing.assert_allclose(np.array(other, float), np.array(column, float), rtol=1e-5)
    assert_close(model(X), expected)


def operators() -> list[str]:
    """Returns what becomes of a variable before a symbolic tensor, by operator, and whether arrays are made of it."""
    variable, symbol = keras.Variable(np.ones(6, "float32")), keras.KerasTensor((4, 6))
    found = []
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "matmul", "pow"):
        try:
            found.append(type(getattr(variable, f"__{name}__")(symbol)).__name__)
        except Exception as error:
            found.append(type(error).__name__)
    return [*found, str(hasattr(symbol, "__jax_array__"))]


def test_a_thread_finds_the_operators_of_keras_as_they_are() -> None:
    model, interruption = interrupted_net()
    expected, found = operators(), []
    interruption.meanwhile = lambda: found.append(operators())
    assert "add" in xray(model, X).blocks[0]["kind"], "its call was drawn as a graph"
    assert found
    assert all(one == expected for one in found)
