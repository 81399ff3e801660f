"""Which connections are found, in nets of ours and of others, and that each kind of net runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_residual import Residual, ResidualStack
from keras_residual.xray import xray
from keras_residual.xray.find.discover import discover

X = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")


def dense(inputs: Any, activation: str | None = "relu") -> Any:
    return layers.Dense(6, activation=activation)(inputs)


def projected() -> keras.Model:
    inputs = keras.Input((6,))
    x = layers.Add(name="projected")([layers.Dense(6)(inputs), dense(dense(inputs))])
    return keras.Model(inputs, layers.Add(name="plain")([dense(dense(x)), x]))


def operators() -> keras.Model:
    inputs = keras.Input((6,))
    x = inputs * 0.5 + dense(inputs)
    x = ops.concatenate([x, dense(x)], axis=-1)
    return keras.Model(inputs, x + 3.0)


def parallel() -> keras.Model:
    """Returns branches side by side, as of Inception: no shortcut among them."""
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Concatenate()([dense(inputs), dense(inputs)]))


def nested() -> keras.Model:
    inner_inputs = keras.Input((6,))
    inner = keras.Model(inner_inputs, layers.Add(name="inner")([inner_inputs, dense(inner_inputs)]))
    inputs = keras.Input((6,))
    return keras.Model(inputs, Residual(layers.Dense(6), name="outer")(inner(inputs)))


def positions() -> keras.Model:
    class PositionEmbedding(layers.Layer):
        def call(self, inputs: Any) -> Any:
            return ops.zeros_like(inputs) + 1.0

    inputs = keras.Input((6,))
    x = layers.Add()([inputs, PositionEmbedding()(inputs)])
    return keras.Model(inputs, layers.Add(name="real")([x, dense(x)]))


def three_summands() -> keras.Model:
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Add(name="three")([dense(inputs), inputs, dense(inputs)]))


FOUND: dict[Callable[[], keras.Model], list[tuple[str, str]]] = {
    projected: [("projected", "add"), ("plain", "add")],
    nested: [("inner", "add"), ("outer", "residual")],
    positions: [("real", "add")],
    three_summands: [("three", "add")],
}


@pytest.mark.parametrize("make", FOUND, ids=lambda make: make.__name__)
def test_the_connections_that_are_there_are_found(make: Any) -> None:
    report = xray(make(), X)
    assert [(block["name"], block["kind"]) for block in report.blocks] == FOUND[make]
    assert report.model["gradient_norm_input"] > 0
    assert all(block["gradient_norm"] > 0 for block in report.blocks)


def test_operators_are_connections_as_layers_are() -> None:
    blocks = xray(operators(), X).blocks
    assert [block["kind"] for block in blocks] == ["add", "concatenate"]
    assert [block["projected"] for block in blocks] == [True, False]
    assert blocks[1]["branch_cosine"] is None
    assert blocks[1]["shape"] == [12]


@pytest.mark.any_backend
def test_branches_side_by_side_are_none() -> None:
    assert [target.places[0].kind for target in discover(parallel())] == ["layer", "layer"]


# Counted from the papers: blocks with stride 1 and as many channels behind as in front, or with a projection where the
# architecture has one, and in DenseNet each layer of a dense block.
OF_OTHERS = {
    "ResNet50": ("add", 3 + 4 + 6 + 3),
    "DenseNet121": ("concatenate", 6 + 12 + 24 + 16),
    "ConvNeXtTiny": ("add", 3 + 3 + 9 + 3),
    "EfficientNetV2B0": ("add", 0 + 1 + 1 + 2 + 4 + 7),
    "MobileNetV3Small": ("add", 1 + 2 + 1 + 2),
    "MobileNetV3Large": ("add", 1 + 1 + 2 + 3 + 1 + 2),
}


def of_others(name: str) -> keras.Model:
    return getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3), classes=3)


@pytest.mark.any_backend
@pytest.mark.parametrize("name", OF_OTHERS)
def test_nets_of_others(name: str) -> None:
    kinds = [place.kind for target in discover(of_others(name)) for place in target.places]
    kind, count = OF_OTHERS[name]
    assert kinds == [kind] * count


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_OTHERS)
def test_nets_of_others_run(name: str) -> None:
    report = xray(of_others(name), np.random.default_rng(0).uniform(size=(2, 32, 32, 3)))
    assert len(report.blocks) == OF_OTHERS[name][1]
    assert report.model["gradient_norm_input"] > 0
    for block in report.blocks:
        assert np.isfinite([block[key] for key in ("gradient_norm", "branch_ratio", "weight_gradient_norm")]).all()


@pytest.mark.parametrize("topology", ["hyper_connections", "reversible", "dense_former"])
def test_stacks_of_several_streams(topology: str) -> None:
    stack = ResidualStack(Residual([layers.Dense(6, activation="relu"), layers.Dense(6)]), 3, topology=topology)
    report = xray(keras.Sequential([keras.Input((6,)), stack, layers.Dense(2)]), X)
    assert [block["kind"] for block in report.blocks] == ["stack"] * 3
    assert all(block["multi_stream"] and block["branch_ratio"] > 0 for block in report.blocks)
    assert report.blocks[-1]["gradient_norm"] > 0
    assert report.model["gradient_norm_input"] > 0


def test_tokens_several_inputs_and_a_recurrent_layer() -> None:
    tokens, extra = keras.Input((5,), dtype="int32", name="tokens"), keras.Input((6,), name="extra")
    x = layers.LSTM(6)(layers.Embedding(10, 6)(tokens))
    model = keras.Model({"tokens": tokens, "extra": extra}, layers.Dense(2)(layers.Add(name="sum")([x, extra])))
    report = xray(model, {"tokens": np.ones((16, 5), "int32"), "extra": X})
    assert [block["kind"] for block in report.blocks] == ["layer"] * 3
    assert report.blocks[0]["squared_mean"] is not None
    assert report.model["gradient_norm_input"] is None or report.model["gradient_norm_input"] >= 0


def test_a_layer_that_is_called_twice_is_two_blocks() -> None:
    inputs = keras.Input((6,))
    block = Residual(layers.Dense(6), name="shared")
    report = xray(keras.Model(inputs, block(block(inputs))), X)
    assert [entry["name"] for entry in report.blocks] == ["shared", "shared:2"]
    assert report.advice == []


class Scaled(layers.Wrapper):
    """A wrapper of others, which calls what it holds more than once."""

    def call(self, inputs: Any) -> Any:
        return self.layer(self.layer(inputs))


SEQUENCE = np.random.default_rng(0).normal(size=(4, 5, 6)).astype("float32")
CLOSED: dict[str, Callable[[], layers.Layer]] = {
    "time_distributed": lambda: layers.TimeDistributed(layers.Dense(6, activation="relu"), name="closed"),
    "connection": lambda: layers.TimeDistributed(Residual(layers.Dense(6), name="inner"), name="closed"),
    "cells": lambda: layers.RNN([layers.GRUCell(6), layers.GRUCell(6)], return_sequences=True, name="closed"),
    "of_others": lambda: Scaled(layers.Dense(6, activation="relu"), name="closed"),
    "spectral": lambda: layers.SpectralNormalization(layers.Dense(6), name="closed"),
}


@pytest.mark.parametrize("name", CLOSED)
def test_a_layer_that_calls_others_in_a_loop_is_one_function(name: str) -> None:
    report = xray(keras.Sequential([keras.Input((5, 6)), CLOSED[name](), layers.Dense(2, name="last")]), SEQUENCE)
    assert [block["name"] for block in report.blocks] == ["closed", "last"]
    assert all(block["weight_gradient_norm"] > 0 for block in report.blocks)


def test_a_layer_that_calls_others_in_a_loop_within_a_branch() -> None:
    branch = layers.TimeDistributed(layers.Dense(6, activation="relu"))
    inputs = keras.Input((5, 6))
    for model in (
        keras.Model(inputs, inputs + branch(inputs)),
        keras.Sequential([keras.Input((5, 6)), Residual(branch)]),
    ):
        (block,) = xray(model, SEQUENCE).blocks
        assert block["branch_ratio"] > 0


def test_a_wrapper_without_weights_is_none() -> None:
    model = keras.Sequential([keras.Input((5, 6)), layers.TimeDistributed(layers.ReLU()), layers.Dense(2)])
    assert len(discover(model)) == 1


def test_a_norm_alone_is_a_layer() -> None:
    report = xray(keras.Sequential([keras.Input((6,)), layers.BatchNormalization(name="alone")]), X)
    assert [block["name"] for block in report.blocks] == ["alone"]
    assert report.blocks[0]["weight_gradient_norm"] > 0


def test_a_net_without_anything_to_look_at_is_refused() -> None:
    model = keras.Sequential([keras.Input((5, 6)), layers.Flatten()])
    with pytest.raises(ValueError, match="`model` must be a model with a residual connection or a layer with weights"):
        xray(model, SEQUENCE)


def test_where_nothing_is_trained_and_no_gradient_flows_the_rest_is_measured() -> None:
    embedding = layers.Embedding(9, 4, name="frozen")
    embedding.trainable = False
    model = keras.Sequential(
        [keras.Input((5,), dtype="int32"), embedding, layers.Lambda(lambda x: ops.cast(x, "int32"))]
    )
    (block,) = xray(model, np.ones((4, 5), "int32"), np.ones((4, 5, 4)), _number_of_errors).blocks
    assert block["variance"] is not None


def _number_of_errors(y: Any, outputs: Any) -> Any:
    return ops.mean(ops.abs(y - ops.cast(outputs, "float32")))
