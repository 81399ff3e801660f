"""A residualized net computes what the plain one did, lets the gradient into its shortcuts, and is a copy."""

from __future__ import annotations

import io
import re
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from backend_helpers import gradients
from contract import assert_close, to_numpy
from keras_residual.residual.residual import Residual
from keras_residual.surgery.plan import Group
from keras_residual.surgery.residualize import residualize
from keras_residual.surgery.suggest import suggest_groups
from surgery.plain_nets import NETS, conv_net, dense_net, inputs_for, nested_net, sequence_net, shake, two_towers


def outputs(model: Any, x: Any) -> list[np.ndarray]:
    return [to_numpy(y) for y in keras.tree.flatten(model(x))]


def connections(model: Any) -> list[Residual]:
    return [layer for layer in model._flatten_layers() if isinstance(layer, Residual)]


@pytest.mark.parametrize("scale", ["skip_init", "layer_scale"])
@pytest.mark.parametrize("name", NETS)
def test_the_outputs_are_unchanged(name: str, scale: str) -> None:
    plain = NETS[name]()
    model = residualize(plain, scale=scale, verbose=False)
    x = inputs_for(plain)
    before, after = outputs(plain, x), outputs(model, x)
    assert connections(model)
    assert len(before) == len(after)
    for y, renewed in zip(before, after, strict=True):
        assert_close(renewed, y, 1e-6)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("start", ["unchanged", "identity"])
def test_the_gradient_reaches_every_factor_at_the_start(name: str, start: str) -> None:
    plain = NETS[name]()
    model = residualize(plain, start=start, verbose=False)
    argument = "skip_scale_layer" if start == "unchanged" else "branch_scale_layer"
    factors = [getattr(connection, argument).factor for connection in connections(model)]
    assert [float(to_numpy(factor.value)) for factor in factors] == [0.0] * len(factors)
    x = inputs_for(plain)

    def total(*_: Any) -> Any:
        return sum(keras.ops.sum(y**2) for y in keras.tree.flatten(model(x)))

    _, found = gradients(total, [], factors)
    assert factors
    for factor, gradient in zip(factors, found, strict=True):
        assert float(abs(gradient)) > 0, factor.path


def test_the_formula() -> None:
    plain = dense_net(blocks=1)
    w0, b0, w1, b1, w2, b2, w3, b3 = plain.get_weights()
    model = residualize(plain, verbose=False)
    (connection,) = connections(model)
    connection.skip_scale_layer.factor.assign(-0.7)
    x = inputs_for(plain)
    h = np.maximum(x @ w0 + b0, 0)
    branch = np.maximum(h @ w1 + b1, 0) @ w2 + b2
    expected = np.maximum(branch - 0.7 * h, 0) @ w3 + b3
    assert_close(model(x), expected, 1e-5)


def test_with_start_identity_the_shortcuts_alone_are_there_at_first() -> None:
    plain = dense_net(blocks=3)
    stem, bias, *_, head, last_bias = plain.get_weights()
    model = residualize(plain, start="identity", verbose=False)
    x = inputs_for(plain)
    assert_close(model(x), np.maximum(x @ stem + bias, 0) @ head + last_bias, 1e-6)


def test_a_projection_stands_where_the_shape_changes() -> None:
    model = residualize(conv_net(), verbose=False)
    projections = {c.name: c.shortcut_layer and c.shortcut_layer.projection for c in connections(model)}
    assert projections["conv1_residual"] is projections["conv5_residual"] is None
    assert (projections["conv3_residual"].filters, projections["conv3_residual"].strides) == (8, (2, 2))
    assert projections["fc1_residual"].units == 5


def test_everything_keeps_its_name_and_its_weights() -> None:
    for make in NETS.values():
        plain = make()
        model = residualize(plain, verbose=False)
        assert model.name == plain.name
        assert [t._keras_history.operation.name for t in model.inputs] == [
            t._keras_history.operation.name for t in plain.inputs
        ]
        assert [getattr(m, "output_names", None) for m in (model, plain)] == [getattr(plain, "output_names", None)] * 2
        kept = {layer.name: layer for layer in model._flatten_layers()}
        for layer in plain._flatten_layers():
            if isinstance(layer, (keras.Model, layers.InputLayer)):
                continue
            assert type(kept[layer.name]) is type(layer)
            for old, new in zip(layer.get_weights(), kept[layer.name].get_weights(), strict=True):
                np.testing.assert_array_equal(old, new)


def test_the_output_keeps_its_name_where_its_layer_is_in_a_group() -> None:
    x = inputs = keras.Input((4,))
    for name in ("first", "second"):
        x = layers.Dense(4, activation="relu", name=name)(x)
    plain = keras.Model(inputs, x)
    model = residualize(plain, groups=[["first", "second"]], verbose=False)
    assert plain.output_names == model.output_names == ["second"]


@pytest.mark.parametrize("make", [dense_net, nested_net])
def test_the_model_that_is_passed_is_untouched(make: Any) -> None:
    plain = make()
    plain.compile("sgd", "mse")
    config, weights = plain.get_config(), plain.get_weights()
    calls = [len(layer._inbound_nodes) for layer in plain.layers]
    model = residualize(plain, verbose=False)
    x = inputs_for(plain)
    model.set_weights([w + 1 for w in model.get_weights()])
    model.train_on_batch(x, model.predict(x, verbose=0))
    assert plain.get_config() == config
    assert [len(layer._inbound_nodes) for layer in plain.layers] == calls
    for before, after in zip(weights, plain.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    ours = {id(layer) for layer in plain._flatten_layers()} | {id(v) for v in plain.variables}
    assert not ours & ({id(layer) for layer in model._flatten_layers()} | {id(v) for v in model.variables})


def test_flags_and_random_state_are_kept() -> None:
    plain = two_towers()
    plain.get_layer("a1").trainable = False
    plain.get_layer("b2").kernel.trainable = False
    plain.get_layer("drop").seed_generator.state.assign([7, 9])
    model = residualize(plain, verbose=False)
    kept = {layer.name: layer for layer in model._flatten_layers()}
    assert not kept["a1"].trainable
    assert kept["a1"].trainable_weights == []
    assert kept["a2"].trainable
    assert [w.trainable for w in kept["b2"].weights] == [False, True]
    assert to_numpy(kept["drop"].seed_generator.state.value).tolist() == [7, 9]
    new = [c.skip_scale_layer.factor.trainable for c in connections(model)]
    assert new == [True] * len(new)


def test_a_frozen_model_stays_frozen() -> None:
    plain = nested_net()
    plain.get_layer("encoder").trainable = False
    model = residualize(plain, verbose=False)
    assert model.get_layer("encoder").trainable_weights == []
    assert len(model.get_layer("decoder").trainable_weights) == 5
    plain.trainable = False
    assert residualize(plain, verbose=False).trainable_weights == []


def test_it_is_compiled_as_the_model_was() -> None:
    plain = dense_net()
    plain.compile(keras.optimizers.Adam(0.02, beta_1=0.8), "mse", metrics=["mae"], jit_compile=False)
    x = inputs_for(plain)
    plain.train_on_batch(x, np.zeros((3, 3)))
    model = residualize(plain, verbose=False)
    assert model.optimizer.get_config() == plain.optimizer.get_config()
    assert model.optimizer is not plain.optimizer
    assert int(to_numpy(model.optimizer.iterations.value)) == 0
    assert model.get_compile_config() == plain.get_compile_config()
    assert len(model.train_on_batch(x, np.zeros((3, 3)))) == 2
    assert not residualize(dense_net(), verbose=False).compiled


def test_a_loss_that_cannot_be_copied_is_said() -> None:
    plain = dense_net()

    def mine(y: Any, z: Any) -> Any:
        return keras.ops.mean(y - z)

    plain.compile("sgd", mine)
    with pytest.warns(UserWarning, match=r"^The new 'net' is not compiled, since the original's compilation "):
        model = residualize(plain, verbose=False)
    assert not model.compiled


@pytest.mark.parametrize("name", NETS)
def test_it_trains_saves_and_loads(name: str, tmp_path: Any) -> None:
    plain = NETS[name]()
    plain.compile(keras.optimizers.SGD(1e-2), "mse")
    model = residualize(plain, verbose=False)
    x = inputs_for(plain)
    target = keras.tree.map_structure(lambda y: np.zeros_like(to_numpy(y)), model(x))
    assert np.isfinite(model.train_on_batch(x, target)).all()
    moved = [abs(float(to_numpy(c.skip_scale_layer.factor.value))) for c in connections(model)]
    assert min(moved) > 0
    path = tmp_path / "model.keras"
    model.save(path)
    loaded: Any = keras.saving.load_model(path)
    for y, again in zip(outputs(model, x), outputs(loaded, x), strict=True):
        assert_close(again, y, 1e-6)


def test_a_sequential_model_stays_one() -> None:
    plain = nested_net()
    model = residualize(plain, verbose=False)
    assert type(residualize(dense_net(), verbose=False)) is keras.Sequential
    assert type(model) is type(plain)
    assert type(model.get_layer("encoder")) is keras.Sequential
    assert {c.name for c in connections(model)} == {"e0_residual", "e2_residual", "d0_residual"}


def test_a_nested_model_that_is_called_twice_has_one_copy() -> None:
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="i0"), layers.Dense(4, name="i1")], name="inner")
    x = inputs = keras.Input((4,))
    x = layers.Dense(4, name="stem")(x)
    plain = shake(keras.Model(inputs, layers.Dense(1, name="head")(inner(inner(x)))))
    model = residualize(plain, verbose=False)
    assert [c.name for c in connections(model)] == ["i0_residual"]
    assert len(model.weights) == len(plain.weights) + 1
    assert_close(model(inputs_for(plain)), plain(inputs_for(plain)), 1e-6)


def test_half_precision_keeps_its_policy() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    plain = conv_net()
    keras.config.set_dtype_policy("float32")
    model = residualize(plain, verbose=False)
    assert {c.dtype_policy.name for c in connections(model)} == {"mixed_bfloat16"}
    x = inputs_for(plain)
    assert model(x).dtype == plain(x).dtype
    np.testing.assert_array_equal(to_numpy(model(x)), to_numpy(plain(x)))


def test_channels_first() -> None:
    x = inputs = keras.Input((3, 8, 8))
    for i, strides in enumerate((1, 1, 2, 1)):
        x = layers.Conv2D(4, 3, strides=strides, padding="same", data_format="channels_first", name=f"conv{i}")(x)
        x = layers.ReLU(name=f"relu{i}")(x)
    plain = shake(keras.Model(inputs, layers.GlobalAveragePooling2D(data_format="channels_first")(x)))
    model = residualize(plain, scale="layer_scale", groups=suggest_groups(plain, every=1), verbose=False)
    assert [tuple(c.skip_scale_layer.factor.shape) for c in connections(model)] == [(4,)] * 2
    if keras.backend.backend() != FORMAT_NEEDS_GPU:
        assert_close(model(inputs_for(plain)), plain(inputs_for(plain)), 1e-6)


FORMAT_NEEDS_GPU = "tensorflow"  # it has no such convolution on the CPU


def test_an_activation_layer_inside_a_layer_comes_after_the_sum() -> None:
    body = [layers.Dense(4, activation=layers.LeakyReLU(0.3), name=f"dense{i}") for i in range(3)]
    plain = shake(keras.Sequential([keras.Input((4,)), *body, layers.Dense(1)]))
    model = residualize(plain, every=1, verbose=False)
    for connection in connections(model):
        assert connection.activation.negative_slope == 0.3
        assert connection.branch[0].activation is keras.activations.linear
    assert_close(model(inputs_for(plain)), plain(inputs_for(plain)), 1e-6)


def test_a_penalised_activation_stays_in_its_layer() -> None:
    body = [layers.Dense(4, activation="relu", activity_regularizer="l2", name=f"dense{i}") for i in range(3)]
    plain = shake(keras.Sequential([keras.Input((4,)), *body, layers.Dense(1)]))
    model = residualize(plain, verbose=False)
    x = inputs_for(plain)
    plain(x), model(x)
    assert_close(sum(model.losses), to_numpy(sum(plain.losses)), 1e-6)
    assert [c.activation for c in connections(model)] == [None]


def test_in_the_middle_of_a_residual_net_nothing_happens_twice() -> None:
    first = residualize(dense_net(), verbose=False)
    with pytest.raises(ValueError, match=re.escape("residualize: 'net' has no place for a shortcut. stem: the first")):
        residualize(first, verbose=False)


def test_no_groups_at_all_are_refused() -> None:
    with pytest.raises(
        ValueError, match="`groups` must be at least one group of layers, or None for the suggested ones"
    ):
        residualize(dense_net(), groups=[], verbose=False)


def test_connections_that_are_there_keep_their_weights() -> None:
    body = [layers.Dense(6, name="first"), layers.Dense(6, name="second"), layers.Dense(1, name="head")]
    block = Residual([layers.Dense(6, activation="relu"), layers.Dense(6)], norm="layer_norm", branch_scale="skip_init")
    plain = shake(keras.Sequential([keras.Input((6,)), layers.Dense(6, name="stem"), block, *body]))
    model = residualize(plain, verbose=False)
    assert [c.name for c in connections(model)] == [block.name, "first_residual"]
    assert_close(model(inputs_for(plain)), plain(inputs_for(plain)), 1e-6)


def test_groups_by_name_in_a_nested_model_and_some_of_the_suggested() -> None:
    plain = nested_net()
    model = residualize(plain, groups=[["encoder/e1", "encoder/e2"]], verbose=False)
    assert [c.name for c in connections(model)] == ["e1_residual"]
    assert [layer.name for layer in connections(model)[0].branch] == ["e1", "e2"]
    chosen = [group for group in suggest_groups(plain) if group.layers[0].startswith("decoder")]
    assert isinstance(chosen[0], Group)
    assert [c.name for c in connections(residualize(plain, groups=chosen, verbose=False))] == ["d0_residual"]
    assert_close(model(inputs_for(plain)), plain(inputs_for(plain)), 1e-6)


def test_a_recurrent_layer_by_name() -> None:
    x = inputs = keras.Input((5, 4))
    for i in range(2):
        x = layers.LSTM(4, return_sequences=True, name=f"lstm{i}")(x)
    plain = shake(keras.Model(inputs, x))
    model = residualize(plain, groups=[["lstm0"], ["lstm1"]], verbose=False)
    assert_close(model(inputs_for(plain)), plain(inputs_for(plain)), 1e-6)


def test_it_says_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    residualize(dense_net(blocks=1))
    assert capsys.readouterr().out.splitlines() == [
        "1 shortcut:",
        "  dense1_residual: dense1, dense2 → relu; identity, 6",
        "left alone:",
        "  stem: the first layer",
        "  head: the last layer",
        "136 weights, 1 of them new. The outputs are unchanged until training.",
    ]
    residualize(dense_net(blocks=1), verbose=False)
    assert capsys.readouterr().out == ""


def test_a_mask_reaches_what_is_behind_the_groups() -> None:
    plain = sequence_net()
    model = residualize(plain, verbose=False)
    x = np.array([[1, 2, 3, 0, 0]])
    assert_close(model(x), plain(x), 1e-6)
    assert_close(model(x), model(x[:, :3]), 1e-5)


@pytest.mark.any_backend
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_what_was_done_is_not_lost_for_a_sign_that_the_terminal_lacks(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding=encoding, write_through=True))
    assert connections(residualize(dense_net(blocks=2, width=4)))
    arrow = "→" if encoding == "utf-8" else r"\u2192"
    assert f" {arrow} relu; identity, 4" in written.getvalue().decode(encoding)
