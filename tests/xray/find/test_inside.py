"""Connections within the `call` of layers of others: each net beside the same one as a Functional graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from contract import to_numpy
from keras_residual import Residual
from keras_residual.xray import xray
from keras_residual.xray.find.discover import discover

X = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
TOKENS = np.random.default_rng(1).integers(0, 9, size=(8, 5))


def branch(seed: int) -> list[keras.Layer]:
    kernel = keras.initializers.GlorotUniform(seed=seed)
    return [layers.Dense(8, activation="relu", kernel_initializer=kernel), layers.Dense(6, kernel_initializer=kernel)]


class Block(layers.Layer):
    """`x + f(x)`, with the variable of a gate in front of the sign."""

    def __init__(self, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.branch = branch(seed)
        self.gain = self.add_weight(shape=(6,), initializer="ones", name="gain")

    def build(self, shape: Any) -> None:
        self.branch[0].build(shape)
        self.branch[1].build((*shape[:-1], 8))

    def call(self, inputs: Any) -> Any:
        x = inputs
        for layer in self.branch:
            x = layer(x)
        return self.gain * x + inputs


class Net(keras.Model):
    """A sum in its own `call`, blocks with one each in a list, and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = layers.Dense(6, kernel_initializer=keras.initializers.GlorotUniform(seed=0))
        self.own = layers.Dense(6, activation="tanh", kernel_initializer=keras.initializers.GlorotUniform(seed=1))
        self.blocks = [Block(seed, name=f"block_{seed}") for seed in (2, 3)]
        self.wide = layers.Dense(4, kernel_initializer=keras.initializers.GlorotUniform(seed=4))

    def call(self, inputs: Any) -> Any:
        x = self.first(inputs)
        x = x + self.own(x)
        for block in self.blocks:
            x = block(x)
        return ops.concatenate([x, ops.relu(self.wide(x))], axis=-1)


def as_graph(net: Net) -> keras.Model:
    """Returns the same net of the same layers."""
    inputs = keras.Input((6,))
    x = net.first(inputs)
    x = x + net.own(x)
    for block in net.blocks:
        x = block.branch[1](block.branch[0](x)) * block.gain + x
    return keras.Model(inputs, ops.concatenate([x, ops.relu(net.wide(x))], axis=-1))


NAMES = ["add_1", "block_2/add_1", "block_3/add_1", "concatenate_1"]
QUANTITIES = ("chi", "singular_value", "lesion", "cka")


def built(net: keras.Model, x: Any = X) -> Any:
    net(x)
    return net


def test_the_numbers_are_those_of_the_same_net_as_a_graph() -> None:
    net = built(Net())
    net.blocks[0].gain.assign(np.linspace(0.5, 2.0, 6))
    y = ops.ones_like(net(X))
    inside, graph = (xray(model, X, y, "mse", quantities=QUANTITIES) for model in (net, as_graph(net)))
    assert [block["name"] for block in inside.blocks] == NAMES
    for one, other in zip(inside.blocks, graph.blocks, strict=True):
        assert one.keys() == other.keys()
        for key in one.keys() - {"name"}:
            number = isinstance(other[key], float)
            assert one[key] == (pytest.approx(other[key], rel=1e-3, abs=1e-5) if number else other[key]), key
    assert inside.blocks[-1]["dead_units"] is not None
    assert inside.model["gradient_norm_input"] == pytest.approx(graph.model["gradient_norm_input"], rel=1e-4)
    np.testing.assert_allclose(inside.model["cka"], graph.model["cka"], atol=1e-5)
    assert inside.model["lesion_loss"] == pytest.approx(graph.model["lesion_loss"], rel=1e-4)


def test_the_weights_of_a_block_are_those_of_its_layers_and_those_that_it_holds_itself() -> None:
    net = built(Net())
    targets = {place.name: place for target in discover(net, X) for place in target.places}
    assert {id(v) for v, _ in targets["block_2/add_1"].weights} == {id(v) for v in net.blocks[0].weights}
    assert xray(net, X).blocks[1]["weight_gradient_norm"] > 0


def state_of(net: keras.Model) -> Any:
    return [
        (
            sorted(name for name in vars(layer) if "xray" not in name),
            len(layer._inbound_nodes),
            len(layer._outbound_nodes),
        )
        for layer in net._flatten_layers()
    ]


def test_nothing_is_left_in_the_layers_nor_in_the_counters_of_names() -> None:
    class Storing(Net):
        def call(self, inputs: Any) -> Any:
            self.seen = super().call(inputs)
            return self.seen

    net = built(Storing())
    seen, state, values = net.seen, state_of(net), [to_numpy(v) for v in net.variables]
    count = int(layers.Add().name.partition("_")[2] or 0)
    report = xray(net, X)
    assert [block["name"] for block in report.blocks] == NAMES
    assert layers.Add().name == f"add_{count + 1}"
    assert net.seen is seen
    assert [names for names, *_ in state_of(net)] == [names for names, *_ in state]
    assert state_of(net) == state
    for value, variable in zip(values, net.variables, strict=True):
        np.testing.assert_array_equal(value, to_numpy(variable))
    assert type(ops.convert_to_tensor(X) * net.blocks[0].gain) is type(net.blocks[0].gain * ops.convert_to_tensor(X))


class Encoder(layers.Layer):
    """Attention and a dense branch, each with dropout and a norm behind; the mask comes with the input."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.attention = layers.MultiHeadAttention(2, 3, kernel_initializer=keras.initializers.GlorotUniform(seed=5))
        self.norms = [layers.LayerNormalization(), layers.LayerNormalization()]
        self.drop = layers.Dropout(0.5, seed=6)
        self.dense = layers.Dense(6, activation="gelu", kernel_initializer=keras.initializers.GlorotUniform(seed=7))

    def build(self, shape: Any) -> None:
        self.attention.build(shape, shape)
        for layer in (*self.norms, self.dense):
            layer.build(shape)

    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        attended = self.attention(inputs, inputs, attention_mask=None if mask is None else mask[:, None, :])
        x = self.norms[0](inputs + self.drop(attended, training=training))
        return self.norms[1](x + self.drop(self.dense(x), training=training))

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


def translated(encoder: Encoder, *, as_graph: bool) -> keras.Model:
    tokens = keras.Input((5,), dtype="int32")
    embedded = layers.Embedding(9, 6, mask_zero=True, embeddings_initializer=keras.initializers.RandomNormal(seed=8))
    x = embedded(tokens)
    if not as_graph:
        return keras.Model(tokens, encoder(x))
    mask = ops.not_equal(tokens, 0)
    attended = encoder.attention(x, x, attention_mask=ops.expand_dims(mask, 1))
    x = encoder.norms[0](x + encoder.drop(attended))
    return keras.Model(tokens, encoder.norms[1](x + encoder.drop(encoder.dense(x))))


def test_masks_and_dropout_are_those_of_the_layer() -> None:
    encoder = Encoder(name="encoder")
    inside = xray(translated(encoder, as_graph=False), TOKENS, quantities=("chi",))
    graph = xray(translated(encoder, as_graph=True), TOKENS)
    assert [block["name"] for block in inside.blocks] == ["encoder/add_1", "encoder/add_2"]
    assert [block["norm"] for block in inside.blocks] == [["post"], ["post"]]
    for one, other in zip(inside.blocks, graph.blocks, strict=True):
        for key in ("gradient_norm", "branch_ratio", "variance", "weight_gradient_norm"):
            assert one[key] == pytest.approx(other[key], rel=1e-3), key
        assert one["chi"] > 0


def test_half_precision_and_a_second_call() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    block = Block(2, name="block")
    inputs = keras.Input((6,))
    report = xray(keras.Model(inputs, block(block(inputs))), X)
    assert [entry["name"] for entry in report.blocks] == ["block/add_1", "block/add_1:2"]
    assert report.blocks[0]["squared_mean"] != report.blocks[1]["squared_mean"]
    assert all(entry["gradient_norm"] > 0 for entry in report.blocks)


# --- What is no connection, and what is left closed ------------------------------------------------------------------


class Noting(Block):
    """Notes a loss, which symbolic tensors do not allow."""

    def call(self, inputs: Any) -> Any:
        self.add_loss(ops.mean(inputs))
        return super().call(inputs)


class TwoFaced(Block):
    """Says something else where it is asked with symbolic tensors."""

    def call(self, inputs: Any) -> Any:
        out = super().call(inputs)
        return out + self.branch[0](inputs)[:, :6] if isinstance(inputs, keras.KerasTensor) else out


class Gelu(layers.Layer):
    def call(self, inputs: Any) -> Any:
        return 0.5 * inputs * (1 + ops.tanh(0.8 * (inputs + 0.045 * inputs**3)))


class Sines(layers.Layer):
    """Encodes positions: what its input holds has no part in its output."""

    def __init__(self) -> None:
        super().__init__()
        self.size = self.add_weight(shape=(), initializer="ones", name="size")

    def call(self, inputs: Any) -> Any:
        positions = ops.arange(ops.shape(inputs)[1], dtype="float32")
        return ops.broadcast_to(ops.sin(positions) * self.size, ops.shape(inputs))


class AddsSines(layers.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.sines = Sines()
        self.dense = layers.Dense(6)

    def build(self, shape: Any) -> None:
        self.dense.build(shape)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs + self.sines(inputs))


@pytest.mark.parametrize(
    "make", [lambda: Noting(2), lambda: TwoFaced(2), Gelu, AddsSines], ids=["noting", "two_faced", "gelu", "sines"]
)
def test_no_connection_is_seen(make: Callable[[], keras.Layer]) -> None:
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(2)(make()(inputs)))
    report = xray(model, X)
    assert {block["kind"] for block in report.blocks} == {"layer"}
    assert report.blocks[-1]["gradient_norm"] > 0


@pytest.mark.any_backend
def test_positions_are_no_branch_of_a_graph_either() -> None:
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(2)(layers.Add()([inputs, Sines()(inputs)])))
    assert {place.kind for target in discover(model, X) for place in target.places} == {"layer"}


def test_a_closed_layer_hides_none_of_the_others() -> None:
    class Open(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.noting, self.block = Noting(2, name="noting"), Block(3, name="block")
            self.residual = Residual(branch(4), name="residual")

        def call(self, inputs: Any) -> Any:
            return self.residual(self.block(self.noting(inputs)))

    assert [block["name"] for block in xray(built(Open()), X).blocks] == ["block/add_1", "residual"]
