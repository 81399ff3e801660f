"""What Keras does to single layers reaches those of a stack, or is refused: frozen, quantised, adapted, laid out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import keras_residual as kr
from backend_helpers import gradients
from contract import assert_close, to_numpy
from keras_residual import Residual, ResidualStack, _backend
from keras_residual.stacks.topologies import TOPOLOGIES

X = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
Y = np.stack([X[:, 0], X[:, 1] * X[:, 2]], axis=1)
EXECUTIONS = ("unrolled", "scan")
OTHER = {"unrolled": "scan", "scan": "unrolled"}


def block() -> Residual:
    branch = [
        layers.Dense(8, activation="tanh", name="in"),
        layers.BatchNormalization(name="norm"),
        layers.Dense(6, name="out"),
    ]
    return Residual(branch, norm="batch_norm", branch_scale=0.5, name="residual")


def made(execution: str, depth: int = 3, make: Any = block, **kwargs: Any) -> keras.Model:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6,))
    stack = ResidualStack(make(), depth, execution=execution, name="stack", **kwargs)
    model = keras.Model(inputs, layers.Dense(2, name="head")(stack(inputs)))
    model.compile("sgd", "mse")
    return model


def norms(model: keras.Layer) -> list[Any]:
    return [layer for layer in model._flatten_layers() if isinstance(layer, layers.BatchNormalization)]


def trained(model: keras.Model, steps: int = 2) -> dict[str, np.ndarray]:
    for _ in range(steps):
        model.train_on_batch(X, Y)
    return model.get_layer("stack").get_stacked_weights()


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_layers_that_a_loop_finds(execution: str) -> None:
    stack = made(execution).get_layer("stack")
    found = [layer for layer in stack._flatten_layers() if isinstance(layer, layers.Dense) and layer.name == "in"]
    weights = stack.get_stacked_weights()["residual/in/kernel"]
    if execution == "unrolled":
        assert len(found) == 3
        for layer, kernel in zip(found, weights, strict=True):
            np.testing.assert_array_equal(layer.get_weights()[0], kernel)
        return
    (layer,) = found
    np.testing.assert_array_equal(layer.get_weights()[0], weights)
    assert layer.kernel.stacked_axes == 1
    with pytest.raises(ValueError, match="not compatible with provided weight shape"):
        layer.set_weights([weights[0], np.zeros(8)])
    layer.set_weights([weights + 1, np.zeros((3, 8))])
    np.testing.assert_array_equal(stack.get_stacked_weights()["residual/in/kernel"], weights + 1)


# --- Frozen ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_loop_over_the_layers_freezes_those_of_every_block(execution: str, tmp_path: Path) -> None:
    model = made(execution)
    for norm in norms(model):
        norm.trainable = False
    model.compile("sgd", "mse")
    model.save(tmp_path / "model.keras")
    before = model.get_layer("stack").get_stacked_weights()
    other = model.get_layer("stack").with_execution(OTHER[execution])
    for which in (model, keras.saving.load_model(tmp_path / "model.keras")):
        after = trained(which)
        changed = {name for name, value in after.items() if np.abs(value - before[name]).max() > 0}
        assert changed == {f"residual/{part}" for part in ("in/kernel", "in/bias", "out/kernel", "out/bias")}
    assert [norm.trainable for norm in norms(other)] == [False] * len(norms(other))
    assert len(norms(other)) == (2 if OTHER[execution] == "scan" else 6)
    assert len(other.trainable_variables) == (4 if OTHER[execution] == "scan" else 12)


def test_what_is_frozen_in_some_blocks_stays_so_and_cannot_be_scanned(tmp_path: Path) -> None:
    model = made("auto", depth=20)
    stack = model.get_layer("stack")
    unrolled = stack if stack.execution == "unrolled" else stack.with_execution("unrolled")
    for layer in unrolled._flatten_layers(include_self=False):
        layer.trainable = "block_0/" not in f"{layer.path}/"
    with pytest.raises(ValueError, match="`execution` must be 'unrolled' or 'auto' here, since the blocks differ in"):
        unrolled.with_execution("scan")
    again = unrolled.with_execution("auto")
    assert again.execution == "unrolled"
    assert "differ in what was changed in them or frozen" in again.execution_reason
    assert len(again.trainable_variables) == len(unrolled.trainable_variables) == 19 * 8
    again.trainable = False  # with TensorFlow, Keras does nothing where a flag is set to what it is
    again.trainable = True
    assert len(again.trainable_variables) == 20 * 8


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_layer_that_the_block_has_frozen_stays_frozen(execution: str) -> None:
    def make() -> Residual:
        return Residual([layers.Dense(8, trainable=False, name="in"), layers.Dense(6, name="out")], name="residual")

    stack = made(execution, make=make).get_layer("stack")
    for which in (stack, stack.with_execution(OTHER[execution])):
        assert {variable.path.split("/")[-2] for variable in which.trainable_variables} == {"out"}


def test_every_norm_of_a_model_by_name_is_found() -> None:
    model = kr.create_model("resnet50", input_shape=(32, 32, 3), num_classes=3)
    assert len(norms(model)) == 53
    assert {layer.execution for layer in model.layers if isinstance(layer, ResidualStack)} == {"unrolled"}
    reasons = {layer.execution_reason for layer in model.layers if isinstance(layer, ResidualStack)}
    assert reasons == {"a model by name has each of its layers where Keras reaches it, unless asked otherwise"}


@pytest.mark.parametrize("execution", [None, "auto", "unrolled", "scan"])
def test_only_a_long_stage_of_a_model_by_name_is_left_to_auto(execution: Any) -> None:
    automatic = "unrolled" if keras.backend.backend() == "torch" else "scan"
    for depth, expected in ((302, automatic if execution in (None, "auto") else execution), (56, execution)):
        with _without_values():
            model = kr.create_model(
                f"cifar_resnet{depth}", input_shape=(32, 32, 3), num_classes=10, execution=execution
            )
        found = {layer.execution for layer in model.layers if isinstance(layer, ResidualStack)}
        assert found == {"unrolled" if expected in (None, "auto") else expected}


def _without_values() -> Any:
    from keras_residual.models.costs import without_initial_values

    return without_initial_values()


# --- Quantised and adapted -------------------------------------------------------------------------------------------


def quantise(model: keras.Model) -> None:
    model.quantize("int8", filters=lambda layer: isinstance(layer, layers.Dense))


def adapt(model: keras.Model) -> None:
    for layer in model._flatten_layers():
        if isinstance(layer, layers.Dense):
            layer.enable_lora(2)
    model.compile("sgd", "mse")
    trained(model, 1)


@pytest.mark.parametrize("change", [quantise, adapt])
def test_layers_of_an_unrolled_stack_are_quantised_and_adapted_and_saved_so(change: Any, tmp_path: Path) -> None:
    model = made("unrolled")
    plain = model.predict(X, verbose=0)
    change(model)
    expected = model.predict(X, verbose=0)
    assert np.abs(expected - plain).max() > 1e-6
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), expected)
    stack, again = (which.get_layer("stack") for which in (model, loaded))
    assert [v.shape for v in again.trainable_variables] == [v.shape for v in stack.trainable_variables]
    automatic = again.with_execution("auto")
    assert automatic.execution == "unrolled"
    assert_close(automatic(X), again(X), 1e-6)
    message = "`execution` must be 'unrolled' or 'auto' here, since the blocks have quantised layers or adapters"
    with pytest.raises(ValueError, match=re.escape(message)):
        stack.with_execution("scan")


@pytest.mark.parametrize(("change", "what"), [(quantise, "quantize"), (adapt, "enable_lora")])
def test_a_scanned_stack_refuses_to_be_quantised_or_adapted(change: Any, what: str) -> None:
    message = (
        f"ResidualStack 'stack': {what} does not reach the layers of a scanned stack, which has the weights of all its "
        "blocks in one. Take execution='unrolled' for the stack, or stack.with_execution('unrolled')."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        change(made("scan"))


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_rate_that_was_changed_is_saved(execution: str) -> None:
    def make() -> Residual:
        return Residual([layers.Dense(6, name="out"), layers.Dropout(0.1, name="dropout")], name="residual")

    stack = made(execution, make=make).get_layer("stack")
    for layer in stack._flatten_layers():
        if isinstance(layer, layers.Dropout):
            layer.rate = 0.7
    again = ResidualStack.from_config(stack.get_config())
    rates = {layer.rate for layer in again._flatten_layers() if isinstance(layer, layers.Dropout)}
    assert rates == {0.7}


# --- Laid out over devices -------------------------------------------------------------------------------------------


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="Keras lays variables out on JAX alone")
def test_a_layout_is_that_of_the_weight_of_a_block() -> None:
    from keras.distribution import DeviceMesh, LayoutMap, ModelParallel

    mesh = DeviceMesh((1, 1), ["batch", "model"], devices=keras.distribution.list_devices()[:1])
    layouts = LayoutMap(mesh)
    layouts[".*in/kernel"] = (None, "model")
    layouts["stack/block_1/residual/out/kernel"] = ("model", None)
    with ModelParallel(layout_map=layouts, batch_dim_name="batch").scope():
        with pytest.raises(ValueError, match="the layout must be the same for the weight 'kernel' of every block"):
            made("scan")
        del layouts["stack/block_1/residual/out/kernel"]
        layouts["stack/block_\\d/residual/out/kernel"] = ("model", None)
        model = made("scan")
        axes = {v.path.split("/", 2)[2]: tuple(v._layout.axes) for v in model.get_layer("stack").trainable_variables}
        assert axes["residual/in/kernel"] == (None, None, "model")
        assert axes["residual/out/kernel"] == (None, "model", None)
        assert axes["residual/in/bias"] == (None, None)
        trained(model, 1)


# --- Computed anew ---------------------------------------------------------------------------------------------------

SCOPES: dict[str, tuple[dict[str, Any], bool]] = {
    "full": ({"mode": "full"}, True),
    "larger": ({"mode": "larger_than", "output_size_threshold": 90}, True),
    "smaller": ({"mode": "larger_than", "output_size_threshold": 1000}, False),
    "the stack": ({"mode": "list_of_layers", "layer_names": ["stack"]}, True),
    "a layer in it": ({"mode": "list_of_layers", "layer_names": ["norm"]}, True),
    "another layer": ({"mode": "list_of_layers", "layer_names": ["head"]}, False),
    "activations": ({"mode": "activations"}, False),
    "none": ({"mode": None}, False),
}


@pytest.mark.slow
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_keras_remat_scope(execution: str, scope: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_scope(execution, scope, monkeypatch)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_all_is_computed_anew_in_a_full_remat_scope(execution: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_scope(execution, "full", monkeypatch)


def in_scope(execution: str, scope: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compares a stack that was made in a scope with one that was not, and whether its blocks are recomputed."""
    arguments, anew = SCOPES[scope]
    expected = made(execution).get_layer("stack")
    with keras.RematScope(**arguments):
        stack = made(execution).get_layer("stack")
    times, recompute = [], _backend.recompute
    monkeypatch.setattr(_backend, "recompute", lambda *args, **kwargs: times.append(1) or recompute(*args, **kwargs))
    wanted, found = (
        gradients(lambda x, s=s: s(x, training=True), [X], s.trainable_variables, compiled=True)
        for s in (expected, stack)
    )
    assert bool(times) == anew
    for one, other in zip([*found[0], *found[1]], [*wanted[0], *wanted[1]], strict=True):
        assert_close(one, other, 1e-4 if np.abs(other).max() < 1e-4 else 1e-5)
    for which in (expected, stack):
        which(X, training=True)
    for name, value in expected.get_stacked_weights().items():
        assert_close(stack.get_stacked_weights()[name] + 1, value + 1, 1e-6)


def test_a_block_that_was_made_in_a_remat_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    with keras.RematScope("full"):
        inner = block()
    stack = ResidualStack(inner, 3, execution="unrolled")
    times, recompute = [], _backend.recompute
    monkeypatch.setattr(_backend, "recompute", lambda *args, **kwargs: times.append(1) or recompute(*args, **kwargs))
    stack(X, training=True)
    assert len(times) == 3


# --- Channels first --------------------------------------------------------------------------------------------------

MAPS = np.random.default_rng(3).normal(size=(2, 5, 7, 4)).astype("float32")
BY_CHANNEL = {
    *("hyper_connections", "mhc", "mhc_lite", "identity_hyper_connections", "mudd", "attention_residuals", "laurel"),
    "residual_dual",
}


@pytest.mark.parametrize("topology", [name for name in TOPOLOGIES if name != "value_residual"])
def test_a_topology_takes_channels_first_or_refuses_it(topology: str) -> None:
    def stack(data_format: str) -> ResidualStack:
        keras.config.set_image_data_format(data_format)
        keras.utils.set_random_seed(3)
        axis = 1 if data_format == "channels_first" else -1
        branch = [layers.GroupNormalization(2, axis=axis, name="norm"), layers.Activation("tanh")]
        return ResidualStack(Residual(branch, name="residual"), 3, topology=topology, name="stack")

    expected = to_numpy(stack("channels_last")(MAPS))
    first = stack("channels_first")
    if topology in BY_CHANNEL:
        message = (
            "ResidualStack 'stack': `topology` must be one that takes the channels where the blocks have them, which "
            "are channels_first"
        )
        with pytest.raises(ValueError, match=re.escape(message)):
            first(np.moveaxis(MAPS, -1, 1))
        return
    assert_close(np.moveaxis(to_numpy(first(np.moveaxis(MAPS, -1, 1))), 1, -1), expected, 1e-5)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("topology", "taken"),
    [
        (kr.topologies.HyperConnections(dynamic=False), True),
        (kr.topologies.HyperConnections(dynamic=False, fractions=2), False),
        (kr.topologies.Laurel(kind="rw"), True),
        (kr.topologies.Reversible(split="channels"), False),
        (kr.topologies.ResidualDual("group_norm", axis=1), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_topology_that_reads_no_channels_takes_channels_first(topology: Any, taken: bool) -> None:
    width = 2 if isinstance(topology, kr.topologies.Reversible) else 4
    conv = layers.Conv2D(width, 3, padding="same", data_format="channels_first")
    stack = ResidualStack(Residual(conv), 3, topology=topology)
    if taken:
        stack.build((None, 4, 6, 8))
        return
    with pytest.raises(ValueError, match="Take data_format='channels_last'"):
        stack.build((None, 4, 6, 8))
