"""What a quantity on request costs is said before it is measured, and is what it takes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from keras_residual import Residual
from keras_residual.xray import xray
from keras_residual.xray.measure.on_request import costs_in_words
from keras_residual.xray.quantities import by_request
from keras_residual.xray.quantities.quantity import Passes

DOCS = Path(__file__).parents[3] / "docs"
X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
Y = np.random.default_rng(1).integers(0, 2, size=8)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
PASSES: Counter[str] = Counter()


class Counted(layers.Dense):
    """Counts how often something passes forward and back."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        out: Any = super().call(inputs, training)
        PASSES["forward"] += 1
        if getattr(out, "requires_grad", False):
            out.register_hook(lambda gradient: PASSES.update(["backward"]))
        return out


def net(first: type[layers.Dense] = layers.Dense) -> keras.Model:
    inputs = keras.Input((4,))
    x = Residual(first(4, activation="tanh"))(inputs)
    x = Residual(layers.Dense(4))(Residual(layers.Dense(4))(x))
    return keras.Model(inputs, layers.Dense(2)(x))


@pytest.mark.any_backend
def test_each_quantity_has_a_cost_and_both_are_in_the_docs() -> None:
    page = (DOCS / "xray.md").read_text(encoding="utf-8")
    for name, quantity in by_request().items():
        cost = quantity.cost
        assert cost is not None, name
        assert f"| `{name}` |" in page
        assert f"| {cost.in_words()} |" in page


@pytest.mark.any_backend
def test_costs_in_words() -> None:
    assert Passes(forward=1, forward_by_block=1).in_words() == "1 forward and 1 more for each block"
    assert Passes(forward=1, forward_by_block=1).in_words(1200) == "1,201 forward"
    assert costs_in_words(["chi", "shattering", "chi"], 3).splitlines()[1:] == [
        "  chi: 5 forward, 4 back; what each block hands on is kept",
        "  shattering: 1 forward, 1 back, of 256 samples",
    ]


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only PyTorch runs layers as often as they are called")
@pytest.mark.parametrize("name", by_request())
def test_it_takes_as_many_passes_as_are_said(name: str) -> None:
    model = net(Counted)

    def passes(quantities: list[str]) -> Counter[str]:
        PASSES.clear()
        xray(model, X, Y, LOSS, quantities=quantities, verbose=False)
        return Counter(PASSES)

    passes([])
    beside = passes([name])
    beside.subtract(passes([]))
    cost = by_request()[name].cost
    assert cost is not None
    assert beside["forward"] == cost.forward + 3 * cost.forward_by_block
    assert beside["backward"] == cost.backward


def test_it_is_said_before_anything_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(targets: Any, outputs: Any) -> Any:
        raise RuntimeError("measured")

    with pytest.raises(RuntimeError, match="measured"):
        xray(net(), X, Y, broken, quantities=["lesion"])
    assert "lesion: 4 forward" in capsys.readouterr().out


def test_nothing_is_said_where_nothing_is_asked_or_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    xray(net(), X)
    xray(net(), X, quantities=["cka"], verbose=False)
    assert capsys.readouterr().out == ""
