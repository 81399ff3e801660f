"""Branches that nobody chose are trained as the sum written by hand is, and no call changes what is somebody else's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import keras_residual as kr
from contract import assert_close, to_numpy
from keras_residual.residual.norms import BatchNormalization
from keras_residual.residual.symmetric_conv import SymmetricConv2D

# What the fault was that this would have found concerns PyTorch, and the other two compile for each example.
EXAMPLES = 40 if keras.backend.backend() == "torch" else 5

Make = Callable[[int], keras.Layer]
"""From a number of channels to a layer that keeps the shape."""

ANYWHERE: dict[str, Make] = {
    "relu": lambda c: layers.ReLU(),
    "bounded relu": lambda c: layers.ReLU(max_value=1.0, negative_slope=0.1),
    "leaky relu": lambda c: layers.LeakyReLU(),
    "prelu": lambda c: layers.PReLU(),
    "elu": lambda c: layers.ELU(),
    "softmax": lambda c: layers.Softmax(),
    "activation": lambda c: layers.Activation("relu"),
    "gelu": lambda c: layers.Activation("gelu"),
    "dense": lambda c: layers.Dense(c),
    "dense relu": lambda c: layers.Dense(c, activation="relu"),
    "batch norm": lambda c: layers.BatchNormalization(momentum=0.5),
    "own batch norm": lambda c: BatchNormalization(momentum=0.5),
    "layer norm": lambda c: layers.LayerNormalization(),
    "group norm": lambda c: layers.GroupNormalization(groups=2),
    "dropout": lambda c: layers.Dropout(0.3, seed=5),
    "noise": lambda c: layers.GaussianNoise(0.1, seed=7),
    "identity": lambda c: layers.Identity(),
    "rescaling": lambda c: layers.Rescaling(0.5, offset=0.1),
    "unit norm": lambda c: layers.UnitNormalization(),
    "nested": lambda c: kr.Residual([BatchNormalization(), layers.ReLU()], activation="relu"),
    "sequence": lambda c: keras.Sequential([layers.Dense(c), layers.ReLU()]),
}
ON_MAPS: dict[str, Make] = {
    "conv": lambda c: layers.Conv2D(c, 3, padding="same"),
    "conv relu": lambda c: layers.Conv2D(c, 3, padding="same", activation="relu"),
    "depthwise": lambda c: layers.DepthwiseConv2D(3, padding="same"),
    "own conv": lambda c: SymmetricConv2D(c, 3),
    "own conv relu": lambda c: SymmetricConv2D(c, 3, activation="relu"),
    "own conv softplus": lambda c: SymmetricConv2D(c, 1, activation="softplus"),
    "pool": lambda c: layers.MaxPooling2D(3, strides=1, padding="same"),
    "spatial dropout": lambda c: layers.SpatialDropout2D(0.3, seed=9),
}
KINDS = {"vector": ((4,), ANYWHERE), "map": ((4, 4, 4), {**ANYWHERE, **ON_MAPS})}


@st.composite
def branches(draw: Any) -> tuple[tuple[int, ...], list[Make]]:
    """Draws the shape of a sample, and what makes each layer of a branch for it."""
    shape, makers = KINDS[draw(st.sampled_from(list(KINDS)))]
    names = draw(st.lists(st.sampled_from(list(makers)), min_size=1, max_size=3))
    # Half of them end in what keeps its output for the gradient.
    names += draw(st.sampled_from([[], ["relu"], ["own conv relu", "relu"] if len(shape) > 1 else ["dense relu"]]))
    return shape, [makers[name] for name in names]


def by_hand(branch: list[keras.Layer], activation: str | None, x: Any) -> Any:
    y = x
    for layer in branch:
        y = layer(y)
    merged = layers.Add()([x, y])
    return layers.Activation(activation)(merged) if activation else merged


def models(shape: tuple[int, ...], make: list[Make], activation: str | None) -> tuple[keras.Model, keras.Model]:
    """Returns a net with two connections, and the same net by hand with the same weights."""
    made = []
    for connect in (
        lambda branch, x: kr.Residual(branch, activation=activation)(x),
        lambda *_: by_hand(_[0], activation, _[1]),
    ):
        inputs = keras.Input(shape)
        x = connect([maker(shape[-1]) for maker in make], layers.Dense(shape[-1])(inputs))
        x = connect([maker(shape[-1]) for maker in make], x)
        model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
        made.append(model)
    first, second = made
    assert [w.shape for w in first.weights] == [w.shape for w in second.weights]
    second.set_weights(first.get_weights())
    return first, second


@settings(max_examples=EXAMPLES)
@given(branches(), st.sampled_from([None, "relu", "gelu"]))
def test_three_steps_are_those_of_the_sum_by_hand(drawn: Any, activation: str | None) -> None:
    shape, make = drawn
    ours, theirs = models(shape, make, activation)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(12, *shape)).astype("float32")
    y = rng.normal(size=(12, 2)).astype("float32")
    for model in (ours, theirs):
        model.fit(x, y, batch_size=4, epochs=1, shuffle=False, verbose=0)
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        assert_close(mine, other, 1e-5)
    assert_close(ours.predict(x, verbose=0), theirs.predict(x, verbose=0), 1e-5)


@settings(max_examples=EXAMPLES)
@given(branches(), st.sampled_from([None, "relu", "gelu"]))
def test_a_call_without_gradients_has_the_same_numbers_and_leaves_its_input(drawn: Any, activation: str | None) -> None:
    shape, make = drawn
    layer = kr.Residual([maker(shape[-1]) for maker in make], activation=activation)
    x = keras.ops.convert_to_tensor(np.random.default_rng(2).normal(size=(3, *shape)).astype("float32"))
    before = to_numpy(x).copy()
    with_gradients = to_numpy(layer(x, training=False)).copy()
    model = keras.Sequential([layer])
    assert_close(model.predict(x, verbose=0), with_gradients, 1e-5)
    assert_close(x, before, 0)
