"""Small nets of known architectures at random initialisation, written as their users write them: nothing is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_residual import Residual, create_model

RNG = np.random.default_rng(0)
PICTURES = RNG.normal(size=(16, 32, 32, 3)).astype("float32")
WORDS = RNG.integers(1, 50, size=(32, 12))
LABELS = RNG.integers(0, 5, size=32)

Case = tuple[keras.Model, Any, Any]
"""The net, a batch, and labels or None; where there are labels the net is compiled."""


def compiled(model: keras.Model, loss: Any) -> keras.Model:
    model.compile(keras.optimizers.Adam(1e-3), loss)
    return model


def resnet18() -> Case:
    model = create_model("resnet18", weights=None, num_classes=5, input_shape=(32, 32, 3))
    return compiled(model, keras.losses.SparseCategoricalCrossentropy(from_logits=True)), PICTURES, LABELS[:16]


class ClassToken(layers.Layer):
    """Puts a learned vector in front of each sequence, and adds learned positions."""

    def build(self, input_shape: Any) -> None:
        _, length, width = input_shape
        self.token = self.add_weight(shape=(1, 1, width), initializer="zeros")
        self.positions = self.add_weight(shape=(1, length + 1, width), initializer=keras.initializers.RandomNormal())

    def call(self, inputs: Any) -> Any:
        token = ops.broadcast_to(self.token, (ops.shape(inputs)[0], 1, inputs.shape[-1]))
        return ops.concatenate([token, inputs], axis=1) + self.positions


def vision_transformer() -> Case:
    inputs = keras.Input((32, 32, 3))
    x = layers.Reshape((16, 32))(layers.Conv2D(32, 8, strides=8)(inputs))
    x = ClassToken()(x)
    for _ in range(6):
        h = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 8)(h, h)])
        h = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Add()([x, layers.Dense(32)(layers.Dense(128, activation="gelu")(h))])
    x = layers.LayerNormalization(epsilon=1e-6)(x)[:, 0]
    return keras.Model(inputs, layers.Dense(5)(x)), PICTURES, None


def mixer() -> Case:
    inputs = keras.Input((32, 32, 3))
    x = layers.Reshape((16, 32))(layers.Conv2D(32, 8, strides=8)(inputs))
    for _ in range(4):
        h = layers.Permute((2, 1))(layers.LayerNormalization()(x))
        h = layers.Dense(16)(layers.Dense(32, activation="gelu")(h))
        x = layers.Add()([x, layers.Permute((2, 1))(h)])
        h = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.Dense(32)(layers.Dense(64, activation="gelu")(h))])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(5)(x)), PICTURES, None


def u_net() -> Case:
    def double(x: Any, filters: int) -> Any:
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        return x

    inputs = keras.Input((32, 32, 3))
    x, skips = inputs, []
    for filters in (8, 16):
        x = double(x, filters)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = double(x, 32)
    for filters in (16, 8):
        x = layers.Conv2DTranspose(filters, 2, strides=2)(x)
        x = double(layers.Concatenate()([skips.pop(), x]), filters)
    model = keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid")(x))
    return compiled(model, "binary_crossentropy"), PICTURES, (PICTURES[..., :1] > 0).astype("float32")


def lstm() -> Case:
    model = keras.Sequential([keras.Input((12,), dtype="int32"), layers.Embedding(50, 16, mask_zero=True)])
    model.add(layers.Bidirectional(layers.LSTM(16, return_sequences=True)))
    model.add(layers.LSTM(16))
    model.add(layers.Dense(5, activation="softmax"))
    return compiled(model, "sparse_categorical_crossentropy"), WORDS, LABELS


def language_model() -> Case:
    """Returns a GPT whose embeddings begin small, as usual: the first block outweighs what it receives."""
    words = keras.Input((12,), dtype="int32")
    x = layers.Embedding(50, 32)(words) + layers.Embedding(12, 32)(ops.arange(12))
    for _ in range(6):
        h = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, 8)(h, h, use_causal_mask=True)
        h = layers.LayerNormalization()(x)
        x = x + layers.Dense(32)(layers.Dense(128, activation="gelu")(h))
    model = keras.Model(words, layers.Dense(50)(layers.LayerNormalization()(x)))
    return compiled(model, keras.losses.SparseCategoricalCrossentropy(from_logits=True)), WORDS, np.roll(WORDS, -1, 1)


def convolutions() -> Case:
    """Returns the first net of Keras's own guide, which ends with a softmax."""
    model = keras.Sequential([keras.Input((32, 32, 3))])
    for filters in (16, 32):
        model.add(layers.Conv2D(filters, 3))
        model.add(layers.ReLU())
    for filters in (32, 32):
        model.add(layers.Conv2D(filters, 3, padding="same", activation="relu"))
        model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(5, activation="softmax"))
    return compiled(model, "sparse_categorical_crossentropy"), np.abs(PICTURES), LABELS[:16]


def head_of_zeros() -> Case:
    """Returns a net whose last layer begins with zeros, as in many recipes: no gradient passes it before a step."""
    inputs = keras.Input((32,))
    x = inputs
    for index in range(4):
        branch = [layers.Dense(32, activation="relu", kernel_initializer="he_normal"), layers.Dense(32)]
        x = Residual(branch, norm="layer_norm", name=f"block_{index}")(x)
    model = keras.Model(inputs, layers.Dense(5, kernel_initializer="zeros")(x))
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 1000, warmup_target=1e-3, warmup_steps=100)
    model.compile(keras.optimizers.Adam(schedule), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model, RNG.normal(size=(32, 32)).astype("float32"), LABELS


ARCHITECTURES: dict[str, Callable[[], Case]] = {
    "resnet18": resnet18,
    "vision_transformer": vision_transformer,
    "mixer": mixer,
    "u_net": u_net,
    "lstm": lstm,
    "language_model": language_model,
    "convolutions": convolutions,
    "head_of_zeros": head_of_zeros,
}
