"""The topologies with a history as a stack uses them: trained, saved, scanned, in half precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from backend_helpers import gradients
from contract import assert_close, to_numpy
from keras_residual import Residual
from keras_residual.layers.value_attention import ValueResidualAttention
from keras_residual.stacks.stack import ResidualStack
from keras_residual.stacks.topologies import TOPOLOGIES
from keras_residual.stacks.topologies.base import Topology
from keras_residual.stacks.topologies.fractal import Fractal
from keras_residual.stacks.topologies.laurel import KINDS, Laurel
from keras_residual.stacks.topologies.value_residual import ValueResidual

NAMES = ["unet", "dense_former", "mudd", "attention_residuals", "laurel", "value_residual", "fractal"]
PLAIN = ["dense_former", "mudd", "laurel"]
X = np.random.default_rng(3).normal(size=(2, 5, 8)).astype("float32")


def block() -> list[keras.Layer]:
    """Returns the two connections of a small transformer."""
    return [
        Residual(ValueResidualAttention(2, 4, causal=True), norm="rms_norm"),
        Residual([keras.layers.Dense(12, activation="gelu"), keras.layers.Dense(8)], norm="rms_norm"),
    ]


def stack(topology: Any, depth: int = 3, **kwargs: Any) -> ResidualStack:
    return ResidualStack(block(), depth, topology=topology, **kwargs)


def randomize(layer: keras.layers.Layer) -> None:
    """Moves the weights of links and topologies off their initial values, which may hide what was not restored."""
    rng = np.random.default_rng(4)
    for variable in layer.trainable_variables:
        noise = 0.2 * rng.normal(size=variable.shape).astype("float32")
        variable.assign(to_numpy(variable.value) + noise)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_trains_and_comes_back_from_a_file(name: str, tmp_path: Path) -> None:
    inputs = keras.Input((5, 8))
    outputs = keras.layers.Dense(1)(stack(name)(inputs))
    model = keras.Model(inputs, outputs)
    model.compile(optimizer="adam", loss="mse")
    before = [to_numpy(w.value) for w in model.trainable_weights]
    assert np.isfinite(model.train_on_batch(X, np.ones((2, 5, 1), "float32")))
    moved = [np.any(to_numpy(w.value) != b) for w, b in zip(model.trainable_weights, before, strict=True)]
    # Of a fractal one column may act alone.
    assert np.mean(moved) > (0.2 if name == "fractal" else 0.8)
    randomize(model)
    expected = to_numpy(model(X, training=False))
    model.save(tmp_path / "model.keras")
    assert_close(keras.saving.load_model(tmp_path / "model.keras")(X, training=False), expected)


@pytest.mark.parametrize("name", NAMES)
def test_output_is_plain_at_first_where_it_should_be(name: str) -> None:
    made = stack(name)
    plain = stack("single", execution="unrolled")
    y = to_numpy(made(X))
    plain(X)
    mine, other = _branch_weights(made), _branch_weights(plain)
    for source, target in zip(mine, other, strict=True):
        target.assign(source.value)
    expected = to_numpy(plain(X))
    error = np.abs(y - expected).max() / np.abs(expected).max()
    assert (error < 1e-5) == (name in PLAIN), error


def _branch_weights(made: ResidualStack) -> list[Any]:
    made = made if made.execution == "unrolled" else made.with_execution("unrolled")
    return [w for cell in made._blocks.cells for connection in cell.connections for w in connection.weights]


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision(name: str, policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    made = stack(name)
    for training in (False, True):
        y = made(X, training=training)
        assert keras.backend.standardize_dtype(y.dtype) == policy.removeprefix("mixed_")
        assert np.isfinite(to_numpy(y).astype("float32")).all()
    assert {keras.backend.standardize_dtype(w.value.dtype) for w in made.trainable_weights} == {"float32"}
    single = keras.Sequential([keras.Input((5, 8)), made])
    single.compile(optimizer="sgd", loss="mse")
    assert np.isfinite(single.train_on_batch(X, np.zeros_like(X)))


SCANNED = [
    ValueResidual(),
    ValueResidual(init=0.3, learnable=True),
    *[Laurel(kind) for kind in KINDS],
    Laurel(KINDS, previous=3, history_rank=2),
]


@pytest.mark.parametrize("remat", [False, "full", "sqrt"])
@pytest.mark.parametrize("topology", SCANNED, ids=lambda t: f"{type(t).__name__}-{t.get_config().get('kind', '')}")
def test_scanned_is_unrolled(topology: Topology, remat: Any) -> None:
    config = topology.get_config()
    scanned = stack(type(topology).from_config(config), depth=5, execution="scan", remat=remat)
    scanned(X)
    randomize(scanned)
    unrolled = scanned.with_execution("unrolled", remat=False)
    assert_close(scanned(X), to_numpy(unrolled(X)))
    found = []
    for made in (scanned, unrolled):
        variables = made.trainable_variables
        (x_bar,), by_weight = gradients(lambda x, made=made: made(x), [X], variables)
        found.append((x_bar, _stacked(made, by_weight)))
    assert_close(found[0][0], found[1][0])
    assert found[0][1].keys() == found[1][1].keys()
    for path, gradient in found[0][1].items():
        expected = found[1][1][path]
        if path.endswith("key/bias"):  # a softmax does not see it: its gradient is rounding
            assert np.abs(gradient - expected).max() < 1e-4
        else:
            assert_close(gradient, expected)


def _stacked(made: ResidualStack, by_weight: list[Any]) -> dict[str, np.ndarray]:
    """Returns the gradients by name, each with the blocks as its leading axis."""
    names = made._blocks.names()
    if made.execution == "scan":
        return dict(zip(names, by_weight, strict=True))
    per_block = len(names)
    blocks = [by_weight[i : i + per_block] for i in range(0, len(by_weight), per_block)]
    return {name: np.stack([one[k] for one in blocks]) for k, name in enumerate(names)}


@pytest.mark.parametrize("name", ["laurel", "value_residual"])
def test_first_values_do_not_depend_on_the_execution(name: str) -> None:
    made = []
    for execution in ("scan", "unrolled"):
        keras.utils.set_random_seed(6)
        made.append(stack(name, execution=execution))
        made[-1](X)
    one, other = (m.get_stacked_weights() for m in made)  # under other automatic names, in one order
    for values, others in zip(one.values(), other.values(), strict=True):
        assert_close(values, others, 0.0)
    kernels = [values for path, values in one.items() if path.endswith("down")]
    assert len(kernels) == (2 if name == "laurel" else 0)
    for values in kernels:
        assert np.abs(values[0] - values[1]).max() > 1e-3  # each block has its own
    if kernels:
        assert np.abs(kernels[0] - kernels[1]).max() > 1e-3  # and each connection


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ["unet", "dense_former", "mudd", "attention_residuals", "fractal"])
def test_what_grows_with_depth_is_not_scanned(name: str) -> None:
    assert not TOPOLOGIES[name].fixed_shape
    assert stack(name).execution == "unrolled"
    with pytest.raises(ValueError, match="`execution` must be 'unrolled' or 'auto' here"):
        stack(name, execution="scan")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("remat", ["full", "sqrt"])
def test_what_is_computed_anew_is_the_same(name: str, remat: str) -> None:
    made = stack(name, depth=7, execution="unrolled")
    made(X)
    randomize(made)
    again = ResidualStack.from_config({**made.get_config(), "remat": remat})
    again(X)
    again.set_weights(made.get_weights())
    assert_close(again(X), to_numpy(made(X)))
    (x_bar,), _ = gradients(lambda x: made(x), [X], made.trainable_variables)
    (again_bar,), _ = gradients(lambda x: again(x), [X], again.trainable_variables)
    assert_close(again_bar, x_bar)


def test_masks_reach_the_attention() -> None:
    mask = np.array([[True] * 5, [True] * 3 + [False] * 2])
    changed = X.copy()
    changed[1, 3:] += 5.0
    for name in ("value_residual", "attention_residuals"):
        made = ResidualStack([Residual(ValueResidualAttention(2, 4))], 3, topology=name)
        assert_close(to_numpy(made(changed, mask=mask))[1, :3], to_numpy(made(X, mask=mask))[1, :3])


def test_fractal_draws_anew_in_each_call() -> None:
    made = stack(Fractal(drop_path_rate=0.5, global_rate=0.5, seed=2), depth=7)
    outputs = {float(to_numpy(ops.sum(ops.abs(made(X, training=True))))) for _ in range(12)}
    assert len(outputs) > 4
    assert_close(made(X), to_numpy(made(X)), 0.0)


@pytest.mark.any_backend
def test_a_stack_without_value_attention_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="a block that has a ValueResidualAttention"):
        ResidualStack(Residual(keras.layers.Dense(8)), 3, topology="value_residual")


@pytest.mark.any_backend
def test_a_depth_that_no_fractal_has_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"The nearest are 3 \(2 columns\) and 7 \(3 columns\)"):
        stack("fractal", depth=5)
