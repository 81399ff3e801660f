"""What `docs/threads.md` says is safe in several threads and processes."""

from __future__ import annotations

import importlib
import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_residual as kr

X = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
THREADS, TIMES = 4, 20


def net() -> keras.Model:
    inputs = keras.Input((8,))
    x = kr.Residual([keras.layers.Dense(8, activation="relu"), keras.layers.Dense(8)], norm="batch_norm")(inputs)
    x = kr.ResidualStack(lambda index: kr.Residual(keras.layers.Dense(8, activation="tanh")), depth=8)(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


@pytest.mark.parametrize("way", ["calls", "predict with a lock"])
def test_one_model_in_four_threads(way: str) -> None:
    model, lock = net(), threading.Lock()
    expected = model.predict(X, verbose=0)

    def answer(_: int) -> np.ndarray:
        if way == "calls":
            return keras.ops.convert_to_numpy(model(X, training=False))
        with lock:
            return model.predict(X, verbose=0)

    with ThreadPoolExecutor(THREADS) as threads:
        for found in threads.map(answer, range(THREADS * TIMES)):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.predict(X, verbose=0), expected, rtol=1e-6)


# A module of its own, which the child can import.
CHILD = """
import keras_residual
import keras
import numpy as np

def predicted(path, x):
    return keras.backend.backend(), keras.models.load_model(path).predict(x, verbose=0)
"""


@pytest.mark.slow
def test_a_process_that_is_spawned_loads_the_model_on_the_same_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "child_of_a_thread_test.py").write_text(CHILD)
    monkeypatch.syspath_prepend(str(tmp_path))
    child = importlib.import_module("child_of_a_thread_test")
    model = net()
    model.save(tmp_path / "model.keras")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
        backend, found = processes.submit(child.predicted, str(tmp_path / "model.keras"), X).result(timeout=300)
    assert backend == keras.backend.backend()
    np.testing.assert_allclose(found, model.predict(X, verbose=0), rtol=1e-5, atol=1e-6)
