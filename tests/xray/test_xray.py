"""The X-ray of small nets against what a second way of calculating says, and what it must leave alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from contract import to_numpy
from keras_residual import Residual, ResidualStack
from keras_residual.xray import xray

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 6)).astype("float32")
Y = RNG.normal(size=(8, 2)).astype("float32")


def mean_square(y: Any, outputs: Any) -> Any:
    return ops.mean(ops.square(outputs - y))


def branch() -> list[keras.Layer]:
    return [layers.Dense(8, activation="tanh"), layers.Dense(6)]


def of_residuals() -> keras.Model:
    inputs = keras.Input((6,))
    x = Residual(branch(), norm="layer_norm", name="one")(inputs)
    return keras.Model(inputs, layers.Dense(2)(Residual(branch(), skip_scale=0.7, name="two")(x)))


def of_sums() -> keras.Model:
    inputs = keras.Input((6,))
    x = inputs
    for name in ("one", "two"):
        x = layers.Add(name=name)([x, keras.Sequential(branch())(x)])
    return keras.Model(inputs, layers.Dense(2)(x))


def of_a_stack(execution: str = "auto") -> keras.Model:
    inputs = keras.Input((6,))
    x = ResidualStack(Residual(branch()), 4, execution=execution, name="stack")(inputs)
    return keras.Model(inputs, layers.Dense(2, kernel_initializer=keras.initializers.GlorotUniform(seed=1))(x))


class Subclassed(keras.Model):
    """Two connections in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = [Residual(branch(), name=name) for name in ("one", "two")]
        self.head = layers.Dense(2)

    def call(self, inputs: Any) -> Any:
        for block in self.blocks:
            inputs = block(inputs)
        return self.head(inputs)


NETS: dict[str, Callable[[], keras.Model]] = {
    "residuals": of_residuals,
    "sums": of_sums,
    "subclassed": Subclassed,
    "layers": lambda: keras.Sequential([keras.Input((6,)), *branch(), layers.Dense(2)]),
    "stack": of_a_stack,
}


def differences(losses: Callable[[np.ndarray], np.ndarray], x: np.ndarray, step: float = 1e-2) -> np.ndarray:
    """Returns the gradient of the mean loss by central differences, all samples at once."""
    found = np.zeros(x.shape)
    for place in np.ndindex(x.shape[1:]):
        there, back = x.copy(), x.copy()
        there[(slice(None), *place)] += step
        back[(slice(None), *place)] -= step
        found[(slice(None), *place)] = (losses(there) - losses(back)) / (2 * step * len(x))
    return found


def errors(outputs: Any) -> np.ndarray:
    """Returns the loss of each sample."""
    return ((to_numpy(outputs).astype("float64") - Y) ** 2).mean(axis=1)


@pytest.mark.parametrize("name", ["residuals", "sums", "stack"])
def test_the_gradients_are_those_of_finite_differences(name: str) -> None:
    model = NETS[name]()
    report = xray(model, X, Y, mean_square)
    by_hand = differences(lambda x: errors(model(x)), X)
    assert report.model["loss"] == pytest.approx(errors(model(X)).mean(), rel=1e-5)
    assert report.model["gradient_norm_input"] == pytest.approx(norm_by_sample(by_hand), rel=5e-3)

    head = model.layers[-1]
    behind = to_numpy(keras.Model(model.inputs[0], head.input)(X))
    by_hand = differences(lambda x: errors(head(x)), behind)
    assert report.blocks[-1]["gradient_norm"] == pytest.approx(norm_by_sample(by_hand), rel=5e-3)


def norm_by_sample(gradient: np.ndarray) -> float:
    return float(np.linalg.norm(gradient, axis=1).sum())


def test_the_gradient_of_a_blocks_weights_is_that_of_finite_differences() -> None:
    model = of_residuals()
    report = xray(model, X, Y, mean_square)
    block = model.get_layer("two")
    total, step = 0.0, 1e-2
    for variable in block.trainable_variables:
        start = to_numpy(variable.value)
        for place in np.ndindex(start.shape):
            ends = []
            for sign in (1, -1):
                moved = start.copy()
                moved[place] += sign * step
                variable.assign(moved)
                ends.append(errors(model(X)).mean())
            total += ((ends[0] - ends[1]) / (2 * step)) ** 2
        variable.assign(start)
    assert report.blocks[1]["weight_gradient_norm"] == pytest.approx(total**0.5, rel=5e-3)
    norm = sum((to_numpy(v.value) ** 2).sum() for v in block.trainable_variables) ** 0.5
    assert report.blocks[1]["weight_norm"] == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("execution", ["unrolled", "scan"])
def test_the_gradient_of_one_block_of_a_stack_is_that_of_finite_differences(execution: str) -> None:
    model = of_a_stack(execution)
    report = xray(model, X, Y, mean_square)
    stack = model.get_layer("stack")
    total, step = 0.0, 1e-2
    for name, start in stack.get_stacked_weights().items():
        for place in np.ndindex(start.shape[1:]):
            ends = []
            for sign in (1, -1):
                moved = start.copy()
                moved[(1, *place)] += sign * step
                stack.set_stacked_weights({name: moved})
                ends.append(errors(model.predict_on_batch(X)).mean())
            total += ((ends[0] - ends[1]) / (2 * step)) ** 2
        stack.set_stacked_weights({name: start})
    assert report.blocks[1]["weight_gradient_norm"] == pytest.approx(total**0.5, rel=5e-3)


def test_what_is_said_of_a_block_is_what_it_receives_and_adds() -> None:
    model = of_residuals()
    report = xray(model, X)
    block = model.get_layer("two")
    x = to_numpy(model.get_layer("one")(X))
    added, out = to_numpy(block.branch_output(x)), to_numpy(block(x))
    found = report.blocks[1]
    assert found["branch_ratio"] == pytest.approx(np.sqrt((added**2).mean() / (x**2).mean()), rel=1e-4)
    cosine = (added * x).sum() / np.linalg.norm(added) / np.linalg.norm(x)
    assert found["branch_cosine"] == pytest.approx(cosine, abs=1e-4)
    assert found["variance"] == pytest.approx(out.var(axis=0).mean(), rel=1e-4)
    assert found["squared_mean"] == pytest.approx((out.mean(axis=0) ** 2).mean(), rel=1e-4)
    assert found["skip_scale"] == 0.7
    assert found["norm"] == []
    assert report.blocks[0]["norm"] == ["pre"]
    assert sum(block["share"] for block in report.blocks) == pytest.approx(1)


def test_both_executions_of_a_stack_say_the_same() -> None:
    def numbers(execution: str) -> Any:
        keras.utils.set_random_seed(0)
        report = xray(of_a_stack(execution), X, Y, mean_square)
        return [{k: v for k, v in block.items() if isinstance(v, float)} for block in report.blocks]

    unrolled, scanned = numbers("unrolled"), numbers("scan")
    assert len(unrolled) == 4
    for one, other in zip(unrolled, scanned, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("name", NETS)
def test_nothing_of_the_model_changes(name: str) -> None:
    model = NETS[name]()
    model(X)
    model.compile("adam", "mse")
    before = [to_numpy(variable.value) for variable in model.variables]
    flags = [layer.trainable for layer in model._flatten_layers()]
    patched = [sorted(layer.__dict__) for layer in model._flatten_layers()]
    outputs = to_numpy(model(X))
    report = xray(model, X, Y)
    assert len(report.blocks) == {"layers": 3, "stack": 4}.get(name, 2)
    for was, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(was, to_numpy(variable.value))
    assert flags == [layer.trainable for layer in model._flatten_layers()]
    assert patched == [sorted(layer.__dict__) for layer in model._flatten_layers()]
    np.testing.assert_array_equal(outputs, to_numpy(model(X)))
    assert model.optimizer.iterations == 0
    assert not model.optimizer.built


def test_moving_statistics_and_seeds_stay_as_they_are() -> None:
    inputs = keras.Input((6,))
    x = Residual([layers.Dense(6), layers.Dropout(0.5)], norm="batch_norm", drop_path_rate=0.5)(inputs)
    model = keras.Model(inputs, x)
    before = [to_numpy(variable.value) for variable in model.variables]
    first = xray(model, X).blocks
    assert first == xray(model, X).blocks, "the same seeds draw the same"
    for was, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(was, to_numpy(variable.value))


def test_an_error_within_the_model_leaves_it_as_it_was() -> None:
    model = of_residuals()
    with pytest.raises(Exception):  # noqa: B017, PT011
        xray(model, X[:, :3])
    assert all("call" not in layer.__dict__ for layer in model._flatten_layers())


class Counting(keras.Model):
    """Counts its calls in a variable, and has a layer that no call reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.first = layers.Dense(6)
        self.unreached = layers.Dense(6)
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, dtype="int32")

    def build(self, shape: Any) -> None:
        self.first.build(shape)

    def call(self, inputs: Any) -> Any:
        self.count.assign_add(1)
        return self.first(inputs)


def test_a_layer_that_no_call_reaches_lets_no_state_move() -> None:
    model = Counting()
    xray(model, X)
    assert int(to_numpy(model.count.value)) == 1, "one call gives the weights"
    for _ in range(2):
        assert [block["kind"] for block in xray(model, X).blocks] == ["layer", "layer"]
    assert int(to_numpy(model.count.value)) == 1


def test_a_built_layer_whose_parts_lack_weights_gets_them() -> None:
    class Bare(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.part = layers.Dense(6)

        def call(self, inputs: Any) -> Any:
            return self.part(inputs)

    layer = Bare()
    layer.built = True
    assert xray(layer, X).blocks[0]["weight_gradient_norm"] > 0


def test_bad_input_is_refused() -> None:
    model = of_residuals()
    with pytest.raises(TypeError, match="`model` must be a Keras model or layer"):
        xray("model", X)  # pyright: ignore
    with pytest.raises(ValueError, match="`loss` must be given where targets are"):
        xray(model, X, Y)
    with pytest.raises(ValueError, match="`y` must be the targets that the loss needs"):
        xray(model, X, loss="mse")
    with pytest.raises(ValueError, match="`x` must be a batch of at least one sample"):
        xray(model, X[:0])
    with pytest.raises(ValueError, match=r"`x` must be an array or a tensor with a batch axis.*Make an array of a"):
        xray(model, X.tolist())
    with pytest.raises(ValueError, match=r"`x` must be arrays of one batch.*\[3, 4\]"):
        xray(model, [X[:3], X[:4]])
    with pytest.raises(ValueError, match=r"unknown quantity|'chii'"):
        xray(model, X, quantities="chii")


def test_half_precision() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    model = of_residuals()
    report = xray(model, X, Y, mean_square)
    keras.config.set_dtype_policy("float32")
    exact = of_residuals()
    exact.set_weights(model.get_weights())
    expected = xray(exact, X, Y, mean_square)
    assert report.model["dtype"] == "float16"
    assert report.blocks[0]["gradient_norm"] == pytest.approx(expected.blocks[0]["gradient_norm"], rel=2e-2)
    assert report.blocks[0]["gradient_underflow"] < 0.1


@pytest.mark.parametrize("how", ["remat", "scope", "reversible", "scan"])
def test_a_stack_that_computes_anew_may_come_first(how: str) -> None:
    settings = {"remat": {"remat": "full"}, "reversible": {"topology": "reversible"}, "scan": {"execution": "scan"}}
    with keras.RematScope(mode="full") if how == "scope" else nullcontext():
        stack = ResidualStack(Residual(layers.Dense(6)), 3, **{"execution": "unrolled", **settings.get(how, {})})
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(2)(stack(inputs)))
    report = xray(model, X * 1e4, Y, mean_square)
    assert len(report.blocks) >= 3
    if how == "reversible":  # whose layers are called one by one here
        assert report.advice[0].rule == "input_scale"


@pytest.mark.any_backend
@pytest.mark.parametrize(("rows", "copies"), [(1, 1), (15, 1), (1, 32), (16, 1)])
def test_few_samples_tell_of_no_dead_units_and_no_ratio_is_none(rows: int, copies: int) -> None:
    inputs = x = keras.Input((6,))
    for _ in range(2):
        x = Residual([layers.Dense(6, activation="relu"), layers.Dense(6)])(x)
    batch = np.repeat(np.random.default_rng(0).normal(size=(rows, 6)), copies, axis=0)
    report = xray(keras.Model(inputs, layers.Dense(3)(x)), batch)
    assert [block["dead_units"] is None for block in report.blocks] == [rows < 16] * 2
    title = str(report).splitlines()[0]
    assert ("variance, last row over first" in title) == (rows > 1)
    assert "nan" not in title
