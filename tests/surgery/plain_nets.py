"""Plain nets with weights off their first values, and inputs for them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers


def shake(model: keras.Model) -> keras.Model:
    """Moves each weight, so that none has a value that hides a mistake; variances stay above 0."""
    rng = np.random.default_rng(3)
    model.set_weights([w + rng.uniform(0.02, 0.2, w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


def inputs_for(model: keras.Model, batch: int = 3) -> Any:
    """Returns inputs in the form that the model takes: an array, or arrays by name."""
    rng = np.random.default_rng(5)

    def draw(tensor: Any) -> np.ndarray:
        shape = (batch, *(7 if size is None else size for size in tensor.shape[1:]))
        if keras.backend.standardize_dtype(tensor.dtype).startswith("int"):
            return rng.integers(0, 5, shape)
        return rng.normal(size=shape).astype("float32")

    drawn = {tensor.name: draw(tensor) for tensor in model.inputs}
    return drawn if len(drawn) > 1 else next(iter(drawn.values()))


def dense_net(blocks: int = 2, width: int = 6) -> keras.Model:
    body = [layers.Dense(width, activation="relu", name=f"dense{i}") for i in range(1, 2 * blocks + 1)]
    stem = [keras.Input((4,)), layers.Dense(width, name="stem"), layers.ReLU(name="stem_relu")]
    return shake(keras.Sequential([*stem, *body, layers.Dense(3, name="head")], name="net"))


def conv_net() -> keras.Model:
    """Convolution, norm, activation, as before ResNet; sizes unknown; a stage that halves them; pooling; a head."""
    x = inputs = keras.Input((None, None, 3), name="picture")
    for i, (filters, strides) in enumerate([(4, 1), (4, 1), (4, 1), (8, 2), (8, 1), (8, 1)]):
        x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False, name=f"conv{i}")(x)
        x = layers.BatchNormalization(name=f"norm{i}")(x)
        x = layers.Activation("relu", name=f"relu{i}")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(5, activation="relu", name="fc1")(x)
    return shake(keras.Model(inputs, layers.Dense(2, name="head")(x), name="conv_net"))


def two_towers() -> keras.Model:
    """Two inputs by name, two outputs, an operation that is no layer, dropout."""
    one, two = keras.Input((4,), name="one"), keras.Input((5,), name="two")
    a = layers.Dense(6, activation="tanh", name="a0")(one)
    a = layers.Dense(6, activation="tanh", name="a1")(a)
    a = layers.Dropout(0.4, seed=3, name="drop")(a)
    a = layers.Dense(6, activation="tanh", name="a2")(a)
    b = layers.Dense(6, name="b0")(two)
    b = layers.Dense(8, activation="gelu", name="b1")(b)
    b = layers.Dense(6, activation="gelu", name="b2")(b)
    x = keras.ops.multiply(layers.Add(name="sum")([a, b]), 0.5)
    x = layers.Dense(6, activation="relu", name="c1")(x)
    outputs = {"up": layers.Dense(1, name="up")(x), "down": layers.Dense(2, name="down")(x)}
    return shake(keras.Model({"one": one, "two": two}, outputs, name="towers"))


def nested_net() -> keras.Model:
    encoder = keras.Sequential(
        [keras.Input((6,)), *(layers.Dense(6, activation="relu", name=f"e{i}") for i in range(3))], name="encoder"
    )
    h = hidden = keras.Input((6,))
    for i in range(2):
        h = layers.Dense(6, activation="relu", name=f"d{i}")(h)
    decoder = keras.Model(hidden, h, name="decoder")
    x = inputs = keras.Input((4,))
    x = layers.Dense(6, name="stem")(x)
    x = decoder(encoder(x))
    return shake(keras.Model(inputs, layers.Dense(1, name="head")(x), name="outer"))


def sequence_net() -> keras.Model:
    """A mask that passes through the layers."""
    x = inputs = keras.Input((None,), dtype="int32", name="tokens")
    x = layers.Embedding(5, 6, mask_zero=True, name="embedding")(x)
    for i in range(4):
        x = layers.Dense(6, activation="relu", name=f"dense{i}")(x)
    x = layers.LSTM(4, name="lstm")(x)
    return shake(keras.Model(inputs, layers.Dense(1, name="head")(x), name="sequence"))


NETS = {
    "dense": dense_net,
    "conv": conv_net,
    "towers": two_towers,
    "nested": nested_net,
    "sequence": sequence_net,
}
