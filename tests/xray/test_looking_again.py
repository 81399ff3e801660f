"""An `Xray` looks again and again: it sees what has changed, and compiles once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from keras_residual import Residual
from keras_residual.xray import Xray, xray

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 6)).astype("float32")
Y = RNG.normal(size=(16, 6)).astype("float32")

CALLS: list[int] = []


@keras.saving.register_keras_serializable("test_kept")
class Noted(layers.Layer):
    """Notes each time that its Python runs."""

    def call(self, inputs: Any) -> Any:
        CALLS.append(1)
        return inputs * 1.0


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


def test_it_sees_the_weights_of_the_moment() -> None:
    model = net()
    look = Xray(model, X, Y)
    first = look.report()
    assert first.to_dict() == look.report().to_dict() == xray(model, X, Y).to_dict()
    model.train_on_batch(X, Y)
    again = look.report()
    assert not close(again, first)
    assert close(again, xray(same_as(model), X, Y))


def test_what_is_asked_for_is_in_that_report_alone() -> None:
    model = net()
    look = Xray(model, X, Y)
    with_more = look.report(["lesion", "chi"], verbose=False)
    assert with_more.blocks[0]["lesion"] is not None
    plain = look.report()
    assert close(plain, with_more)
    assert "lesion" not in plain.blocks[0]
    model.train_on_batch(X, Y)
    assert look.report("lesion", verbose=False).blocks[0]["lesion"] != with_more.blocks[0]["lesion"]


def test_a_second_look_compiles_nothing() -> None:
    model = net()
    look = Xray(model, X, Y)
    assert not look.compiled
    for _ in range(2):  # a first step may leave notes in the layers
        look.report()
        model.train_on_batch(X, Y)
    assert look.compiled
    count = len(CALLS)
    look.report()
    assert keras.backend.backend() == "torch" or len(CALLS) == count  # PyTorch runs its Python at each call


def freeze(model: Any) -> None:
    model.get_layer("one").trainable = False


def compile_again(model: Any) -> None:
    model.compile(keras.optimizers.SGD(0.5), "mae")


@pytest.mark.parametrize("change", [freeze, compile_again])
def test_another_loss_and_what_is_frozen_are_seen(change: Callable[[Any], None]) -> None:
    model = net()
    look = Xray(model, X, Y)
    look.watch()
    before = look.report()
    look.watch()
    change(model)
    assert not look.compiled
    after = look.report(update_steps=3)
    assert not close(after, before)
    assert after.model["update_steps"] == 0, "what was watched were other weights"
    other = same_as(model)
    change(other)
    assert close(after, xray(other, X, Y))


def test_how_far_the_weights_have_moved_is_measured_from_where_they_were_watched() -> None:
    model = net()
    look = Xray(model, X, Y)
    look.watch()
    layer = model.get_layer("one")
    before = [np.array(weights) for weights in layer.get_weights()[:2]]
    for _ in range(4):
        model.train_on_batch(X, Y)
    moved = [now - then for now, then in zip(layer.get_weights()[:2], before, strict=True)]
    expected = np.sqrt(sum((part**2).sum() for part in moved) / sum((part**2).sum() for part in before)) / 4
    report = look.report(update_steps=4)
    assert report.model["update_steps"] == 4
    assert report.blocks[0]["update_ratio"] == pytest.approx(expected, rel=1e-4)
    assert look.report(update_steps=9).model["update_steps"] == 0, "nobody has watched since"


def test_what_is_known_of_the_moment_is_part_of_the_report() -> None:
    report = Xray(net(), X, Y).report(facts={"step": 7, "name": "mine"})
    assert (report.model["step"], report.model["name"]) == (7, "mine")


def test_what_the_report_measures_itself_is_not_taken_as_a_fact() -> None:
    look = Xray(net(), X, Y)
    reserved = {*look.report().model, "update_steps", "sharpness"} - {"name"}
    assert {"batch", "loss", "training"} < reserved
    for key in reserved:
        with pytest.raises(ValueError, match=f"xray: `facts` must be .*{key}"):
            look.report(facts={key: 3})
    with pytest.raises(ValueError, match="'effective_depth', which the report has by itself"):
        look.report(["path_lengths"], facts={"effective_depth": 3}, verbose=False)
    with pytest.raises(TypeError, match="xray: `facts` must be a mapping"):
        look.report(facts=[("step", 7)])  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="quantites"):
        look.report(quantites=["cka"])  # pyright: ignore[reportCallIssue]


def test_entries_without_a_report_or_without_any_kept_are_none() -> None:
    look = Xray(net(), X, Y)
    assert look.entries() == []
    look.watch()
    assert look.entries() == []
    look.report()
    assert look.entries() == []
    kept = Xray(net(), X, Y, entries=4)
    kept.watch()
    assert kept.entries() == []
    kept.report()
    assert [len(weights) > 0 for weights, _ in kept.entries()] == [True, True]


def test_the_first_watch_after_a_report_compiles_once_more() -> None:
    look = Xray(net(), X, Y)
    look.report()
    assert look.compiled
    look.watch()
    assert not look.compiled
    look.report()
    assert look.compiled
    count = len(CALLS)
    look.report()
    assert keras.backend.backend() == "torch" or len(CALLS) == count


def test_a_model_keeps_nothing_of_it() -> None:
    model = net()
    before = {id(part): set(vars(part)) for part in model._flatten_layers()}
    xray(model, X, Y, quantities=["lesion"], verbose=False)
    for part in model._flatten_layers():
        assert set(vars(part)) - before[id(part)] <= {"_jax_state_synced"}, part.name


def test_a_report_that_fails_can_be_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    look = Xray(net(), X, Y)
    expected = look.report().to_dict()

    def fail(given: Any) -> Any:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(look._program, "_program", fail)
        with pytest.raises(MemoryError):
            look.report()
    assert look.report().to_dict() == expected


def test_steps_that_nobody_watched_are_none() -> None:
    report = Xray(net(), X, Y).report(update_steps=5)
    assert report.model["update_steps"] == 0
    assert report.blocks[0]["update_ratio"] == pytest.approx(xray(net(), X, Y).blocks[0]["update_ratio"], rel=2)


@pytest.mark.any_backend
def test_arguments_are_refused_when_it_is_made() -> None:
    with pytest.raises(TypeError, match=r"xray: `model` must be a Keras model or layer"):
        Xray(3, X)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"xray: `y` must be arrays of 16 rows"):
        Xray(net(), X, Y[:3])
