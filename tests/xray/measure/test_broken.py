"""Where broken numbers come from: the batch, a weight, a layer, the loss or a gradient, not whoever got them first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_residual import Residual, ResidualStack
from keras_residual.xray import xray
from keras_residual.xray.health import healths
from keras_residual.xray.measure import broken

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 6)).astype("float32")
Y = RNG.normal(size=(16, 2)).astype("float32")


class Function(layers.Layer):
    """A layer that computes one expression."""

    def __init__(self, function: Callable[[Any], Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function

    def call(self, inputs: Any) -> Any:
        return self.function(inputs)


def root(x: Any) -> Any:
    return x + ops.sqrt(-1.0 - ops.square(x))


def reciprocal_of_zero(x: Any) -> Any:
    return x + 1.0 / (0.0 * x)


def root_at_zero(x: Any) -> Any:
    return x + ops.sqrt(ops.sum(ops.square(0.0 * x), axis=-1, keepdims=True))


def masked(x: Any) -> Any:
    """Adds minus infinity to all but the first entry, as an attention does before its softmax."""
    return x + ops.convert_to_tensor(np.array([0.0, *[-np.inf] * 5], "float32"))


def filled(x: Any) -> Any:
    return ops.where(ops.isnan(x), ops.zeros_like(x), x)


def branch() -> list[Any]:
    return [layers.Dense(8, activation="tanh"), layers.Dense(6)]


def net(
    stem: Callable[[Any], Any] | None = None,
    inside: Callable[[Any], Any] | None = None,
    between: Callable[[Any], Any] | None = None,
    behind: Callable[[Any], Any] | None = None,
    loss: Any = "mse",
    first: Callable[[Any], Any] | None = None,
) -> keras.Model:
    """Returns a stem, three blocks and a head, with a function at one of the places between."""
    inputs = keras.Input((6,))
    x = Function(first, name="first")(inputs) if first else inputs
    x = layers.Dense(6, name="stem")(x)
    x = Function(stem, name="behind_the_stem")(x) if stem else x
    for index in range(3):
        parts = [*branch(), Function(inside, name="within")] if inside and index == 1 else branch()
        x = Residual(parts, norm="layer_norm", name=f"block_{index}")(x)
        x = Function(between, name="between")(x) if between and index == 1 else x
    x = Function(behind, name="in_front_of_the_head")(x) if behind else x
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    model.compile("sgd", loss)
    return model


def with_weight(path: str, value: float, **kwargs: Any) -> keras.Model:
    model = net(**kwargs)
    variable = next(v for v in model.variables if path in v.path)
    changed = np.array(ops.convert_to_numpy(variable.value))
    changed[0] = value
    variable.assign(changed)
    return model


def changed(array: np.ndarray, value: float) -> np.ndarray:
    found = array.copy()
    found[3, ..., 0] = value
    return found


def nan_loss(y: Any, outputs: Any) -> Any:
    return ops.mean(ops.log(-1.0 - ops.square(outputs)), axis=-1)


BAD_WEIGHTS = np.array([1.0] * 15 + [np.nan], "float32")
CASES: dict[str, tuple[Callable[[], keras.Model], dict[str, Any], tuple[str, str, str]]] = {
    "nan_in_inputs": (net, {"x": changed(X, np.nan)}, ("given_not_finite", "input", "1 of 16 samples hold NaN")),
    "inf_in_inputs": (net, {"x": changed(X, np.inf)}, ("given_not_finite", "input", "1 of 16 samples hold infinite")),
    "nan_in_targets": (net, {"y": changed(Y, np.nan)}, ("given_not_finite", "targets", "1 of 16 samples")),
    "nan_in_sample_weights": (net, {"sample_weight": BAD_WEIGHTS}, ("given_not_finite", "sample_weight", "1 of 16")),
    "nan_in_the_stems_weights": (
        lambda: with_weight("stem/kernel", np.nan), {}, ("given_not_finite", "stem", "6 of the 36 entries of its")
    ),
    "inf_in_a_blocks_weights": (
        lambda: with_weight("block_1/dense", np.inf), {}, ("given_not_finite", "block_1", "are infinite")
    ),
    "nan_in_the_heads_bias": (
        lambda: with_weight("head/bias", np.nan), {}, ("given_not_finite", "head", "its weight 'head/bias' are NaN")
    ),
    "stem": (lambda: net(stem=root), {}, ("not_a_number", "behind_the_stem", "it hands on NaN")),
    "block": (lambda: net(inside=root), {}, ("not_a_number", "block_1", "its layer 'within' hands on NaN")),
    "division": (lambda: net(inside=reciprocal_of_zero), {}, ("not_a_number", "block_1", "hands on infinite values")),
    "between_blocks": (lambda: net(between=root), {}, ("not_a_number", "between", "it hands on NaN")),
    "head": (lambda: net(behind=root), {}, ("not_a_number", "in_front_of_the_head", "it hands on NaN")),
    "loss": (lambda: net(loss=nan_loss), {}, ("loss_not_finite", "loss", "the loss is NaN")),
    "gradient_of_a_block": (
        lambda: net(inside=root_at_zero), {}, ("gradient_not_finite", "block_1", "its layer 'within' hands back")
    ),
    "gradient_between_blocks": (
        lambda: net(between=root_at_zero), {}, ("gradient_not_finite", "between", "it hands back")
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_cause_is_named_and_what_it_breaks_is_not(name: str) -> None:
    make, given, (rule, block, finding) = CASES[name]
    model = make()
    report = xray(model, **{"x": X, "y": Y, **given})
    (entry,) = report.advice
    assert (entry.rule, entry.block) == (rule, block), str(report)
    assert finding in entry.finding
    for one, health in zip(report.blocks, healths(report.blocks, report.model, report.advice), strict=True):
        reached = one["nan"] or one["inf"] or one["gradient_nan"]
        expected = "ill" if one["name"] == block else "affected" if reached else "healthy"
        assert health.level == expected


def test_what_a_layer_mends_is_no_fault() -> None:
    """An infinite mask that a softmax takes away, and a missing value that a layer fills in."""
    model = net(inside=lambda x: ops.softmax(masked(x)), first=filled)
    assert xray(model, changed(X, np.nan), Y).advice == []


def test_what_is_mended_is_not_named_where_something_else_breaks() -> None:
    inputs = keras.Input((6,))
    x = layers.Softmax(name="mends")(Function(masked, name="masks")(layers.Dense(6)(inputs)))
    x = Function(root, name="breaks")(x)
    model = keras.Model(inputs, layers.Dense(2)(Residual(branch(), name="block")(x)))
    (entry,) = xray(model, X, Y, "mse").advice
    assert (entry.rule, entry.block) == ("not_a_number", "breaks")


def test_a_moving_variance_that_is_broken_is_named_though_training_does_not_read_it() -> None:
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(2)(Residual(branch(), norm="batch_norm", name="block")(inputs)))
    variance = next(v for v in model.variables if v.path.endswith("moving_variance"))
    variance.assign(np.full(variance.shape, np.nan))
    report = xray(model, X, Y, "mse")
    assert np.isfinite(report.model["loss"])
    assert [(entry.rule, entry.block) for entry in report.advice] == [("given_not_finite", "block")]
    assert "moving_variance" in report.advice[0].finding


def test_the_call_of_a_subclassed_model_and_an_operation_of_a_graph_are_named() -> None:
    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="whole")
            self.first, self.second = layers.Dense(6), layers.Dense(2)

        def call(self, inputs: Any) -> Any:
            return self.second(ops.log(-ops.abs(self.first(inputs)) - 1.0))

    (entry,) = xray(Net(), X, Y, "mse").advice
    assert (entry.rule, entry.block) == ("not_a_number", "whole")
    inputs = keras.Input((6,))
    x = ops.log(-ops.abs(layers.Dense(6)(inputs)) - 1.0)
    model = keras.Model(inputs, layers.Dense(2)(Residual(branch())(x)))
    (entry,) = xray(model, X, Y, "mse").advice
    assert (entry.rule, entry.block) == ("not_a_number", "log")


def test_the_block_of_a_stack_that_breaks_is_named() -> None:
    class Late(layers.Layer):
        """Breaks where what comes in is large: in a stack without a norm, from some depth on."""

        def call(self, inputs: Any) -> Any:
            return ops.exp(ops.square(inputs))

    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(2)(ResidualStack(Residual(Late()), 8, name="stack")(inputs)))
    report = xray(model, X, Y, "mse")
    first = next(block["name"] for block in report.blocks if block["nan"] or block["inf"])
    (entry,) = report.advice
    assert entry.block == first
    assert first not in ("stack.0", "stack.7")


def test_float16_overflows_by_growth() -> None:
    keras.config.set_dtype_policy("float16")
    inputs = keras.Input((6,))
    x = inputs
    for index in range(5):
        wide = layers.Dense(6, kernel_initializer=keras.initializers.RandomNormal(stddev=20.0, seed=index))
        x = Residual(wide, name=f"block_{index}")(x)
    report = xray(keras.Model(inputs, layers.Dense(2)(x)), X, Y, "mse")
    (entry,) = report.advice
    assert entry.rule == "overflow"
    assert entry.block.startswith("block_")
    assert "float16" in entry.finding


def test_code_that_cannot_be_run_twice_leaves_the_block_as_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(broken, "broken_layer", fail)
    (entry,) = xray(net(inside=root), X, Y).advice
    assert (entry.rule, entry.block, entry.finding) == ("not_a_number", "block_1", "it hands on NaN (1 of its values)")
