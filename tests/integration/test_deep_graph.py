"""Functional models of more residual layers in a row than Python has frames by default."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import keras_residual as kr
from contract import assert_close, to_numpy
from keras_residual import _recursion

DEPTH = 2000
FACTOR = 1e-3


@pytest.fixture(autouse=True)
def default_limit() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(before)


def chain(tensor: Any, depth: int) -> Any:
    """Applies residual layers that multiply by `1 + FACTOR`: a branch without weights is quick to save and to load."""
    for _ in range(depth):
        tensor = kr.Residual(layers.Rescaling(FACTOR))(tensor)
    return tensor


@pytest.mark.slow
def test_two_thousand_in_a_row_are_made_called_saved_loaded_and_cloned(tmp_path: Path) -> None:
    inputs = keras.Input((2,))
    x = kr.Residual(layers.Dense(2))(inputs)
    x = chain(x, DEPTH - 2)
    model = keras.Model(inputs, kr.Residual(layers.Dense(2))(x))
    assert len(model.layers) == DEPTH + 1
    data = np.array([[1.0, -2.0]], "float32")
    first, last = (layer.branch[0] for layer in (model.layers[1], model.layers[-1]))

    def by_hand(x: np.ndarray) -> np.ndarray:
        x = x + x @ to_numpy(first.kernel)
        x = x * (1 + FACTOR) ** (DEPTH - 2)
        return x + x @ to_numpy(last.kernel)

    expected = to_numpy(model(data))
    assert_close(expected, by_hand(data), tolerance=1e-3)  # each of 2,000 steps rounds in float32

    path = tmp_path / "deep.keras"
    model.save(path)
    # Another process starts with Python's own limit.
    sys.setrecursionlimit(1000)
    assert_close(to_numpy(keras.models.load_model(path)(data)), expected)

    sys.setrecursionlimit(1000)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert_close(to_numpy(clone(data)), expected)


@pytest.mark.any_backend
def test_other_layers_between_count_too() -> None:
    # 300 residual layers would not need a higher limit; 1,500 layers do.
    inputs = x = keras.Input((2,))
    for _ in range(300):
        for _ in range(4):
            x = layers.Activation("linear")(x)
        x = kr.Residual(layers.Rescaling(FACTOR))(x)
    assert len(keras.Model(inputs, x).layers) == 1501


@pytest.mark.any_backend
def test_the_longest_way_counts_where_the_graph_has_several() -> None:
    inputs = keras.Input((2,))
    long = chain(inputs, 30)
    x = layers.Add()([inputs, long])
    for first, second in ((long, inputs), (inputs, long)):
        before = sys.getrecursionlimit()
        _recursion.make_room("test", layers.Add()([first, second]))
        assert sys.getrecursionlimit() >= 31 + _recursion.HEADROOM
        assert sys.getrecursionlimit() >= before
    assert _recursion._length_at(x) == 32  # the input, 30 residual layers and the sum


@pytest.mark.any_backend
def test_the_limit_is_never_lowered() -> None:
    sys.setrecursionlimit(50_000)
    chain(keras.Input((2,)), 3)
    assert sys.getrecursionlimit() == 50_000


@pytest.mark.any_backend
def test_eager_calls_leave_the_limit_alone() -> None:
    layer = kr.Residual(layers.Rescaling(FACTOR))
    layer(np.ones((1, 2), "float32"))
    assert sys.getrecursionlimit() == 1000


@pytest.mark.any_backend
def test_a_chain_over_the_longest_names_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_recursion, "LONGEST", 4)
    monkeypatch.setattr(_recursion, "_STEP", 1)
    monkeypatch.setattr(_recursion, "HEADROOM", sys.getrecursionlimit() - 3)
    x = chain(keras.Input((2,)), 3)  # the input is a node of its own
    with pytest.raises(ValueError, match=r"at most 4 layers.*received 5.*ResidualStack\(block, depth\)"):
        chain(x, 1)


@pytest.mark.any_backend
def test_a_python_whose_frames_are_on_the_c_stack_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "implementation", type("Other", (), {"name": "pypy"}))
    sys.setrecursionlimit(_recursion.HEADROOM + 3)
    x = chain(keras.Input((2,)), 2)
    with pytest.raises(ValueError, match=r"pypy.*ResidualStack\(block, depth\)"):
        chain(x, 1)
    assert sys.getrecursionlimit() == _recursion.HEADROOM + 3
