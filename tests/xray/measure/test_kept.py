"""An X-ray of a model that was looked at before compiles nothing anew, unless more than numbers has changed."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_residual import Residual
from keras_residual.xray import xray

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 6)).astype("float32")
Y = RNG.normal(size=(16, 6)).astype("float32")

CALLS: list[int] = []


@keras.saving.register_keras_serializable("test_kept")
class Noted(layers.Layer):
    """Notes each time that its Python runs."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factors = {"of_all": [1.0]}
        self.by_unit = np.ones(6, "float32")

    def call(self, inputs: Any) -> Any:
        CALLS.append(1)
        return inputs * self.factors["of_all"][0] * ops.convert_to_tensor(self.by_unit)


def net() -> keras.Model:
    inputs = keras.Input((6,))
    x = Noted(name="noted")(inputs)
    for name in ("one", "two"):
        x = Residual(
            [layers.Dense(6, activation="tanh", name=f"{name}_dense"), layers.Dropout(0.5, seed=1)], name=name
        )(x)
    model = keras.Model(inputs, layers.Dense(6)(x))
    model.compile(keras.optimizers.SGD(0.5), "mse")
    return model


def same_as(model: keras.Model) -> keras.Model:
    """Returns another net with the same weights and random states."""
    other = net()
    for source, target in zip(model.variables, other.variables, strict=True):
        target.assign(source.value)
    return other


def close(one: Any, other: Any) -> bool:
    norms = [[block["weight_gradient_norm"] or 0.0 for block in report.blocks] for report in (one, other)]
    return bool(np.allclose(*norms, rtol=1e-5))


def test_it_sees_the_weights_and_the_batch_of_the_moment() -> None:
    model = net()
    first = xray(model, X, Y)
    model.train_on_batch(X, Y)
    for x in (X, 2 * X):
        again = xray(model, x, Y)
        assert not close(again, first)
        assert close(again, xray(same_as(model), x, Y))
    with_more = xray(model, X, Y, quantities=["lesion", "chi"])
    assert close(xray(model, X, Y), with_more)
    assert with_more.blocks[0]["lesion"] is not None


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="runs its Python at each call")
def test_a_second_look_compiles_nothing() -> None:
    model = net()
    for _ in range(2):  # a first step and a first X-ray may leave notes in the layers
        xray(model, X, Y)
        model.train_on_batch(X, Y)
    count = len(CALLS)
    xray(model, X + 1, Y)
    assert len(CALLS) == count
    xray(model, X[:8], Y[:8])
    assert len(CALLS) > count


def set_rate(model: Any) -> None:
    model.get_layer("one").branch[1].rate = 0.0


def set_factor(model: Any) -> None:
    model.get_layer("noted").factors["of_all"][0] = 3.0


def set_array(model: Any) -> None:
    model.get_layer("noted").by_unit[:3] = 0.0


def set_activation(model: Any) -> None:
    model.get_layer("two").branch[0].activation = keras.activations.relu


def freeze(model: Any) -> None:
    model.get_layer("one").trainable = False


def compile_again(model: Any) -> None:
    model.compile(keras.optimizers.SGD(0.5), "mae")


@pytest.mark.parametrize("change", [set_rate, set_factor, set_array, set_activation, freeze, compile_again])
def test_a_change_of_the_model_is_seen(change: Callable[[Any], None]) -> None:
    model = net()
    before = xray(model, X, Y)
    change(model)
    other = same_as(model)
    change(other)
    after = xray(model, X, Y)
    assert not close(after, before)
    assert close(after, xray(other, X, Y))


def test_another_loss_and_another_mode_are_seen() -> None:
    model = net()
    known = xray(model, X, Y)
    for arguments in ({"loss": "mae"}, {"training": False}):
        after = xray(model, X, Y, **arguments)
        assert not close(after, known)
        assert close(after, xray(same_as(model), X, Y, **arguments))


def test_it_goes_with_the_model_and_into_no_copy(tmp_path: Path) -> None:
    model = net()
    xray(model, X, Y)
    model.save(tmp_path / "net.keras")
    for other in (keras.models.load_model(tmp_path / "net.keras"), keras.models.clone_model(model)):
        assert set(vars(other)) <= set(vars(net())) | {"_jax_state_synced"}
        assert len(xray(other, X, Y).blocks) == 2
    gone = weakref.ref(model)
    del model, other
    keras.backend.clear_session()
    gc.collect()
    assert gone() is None
