"""X-rays in several threads wait for each other."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
from keras import layers

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
