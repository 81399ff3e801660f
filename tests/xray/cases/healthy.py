"""Nets with nothing wrong, which must draw no advice: of the zoo and by hand, as they begin and after some training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_residual import Residual, ResidualStack, SkipInit, create_model

WIDTH = 32
BATCH = 64
X = np.random.default_rng(0).normal(size=(BATCH, WIDTH)).astype("float32")
PICTURES = np.random.default_rng(0).normal(size=(16, 16, 16, 3)).astype("float32")
CLASSES = np.random.default_rng(1).integers(0, 3, size=BATCH)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def mlp() -> list[keras.Layer]:
    return [
        layers.Dense(WIDTH, activation="relu", kernel_initializer="he_normal"),
        layers.Dense(WIDTH, kernel_initializer="lecun_normal"),
    ]


def stack(depth: int, rule: Any = None, topology: Any = "single", **kwargs: Any) -> tuple[keras.Model, Any]:
    inputs = keras.Input((WIDTH,))
    x = ResidualStack(Residual(mlp(), **kwargs), depth, depth_rule=rule, topology=topology)(inputs)
    return keras.Model(inputs, layers.Dense(3)(x)), X


def cifar_resnet() -> tuple[keras.Model, Any]:
    return create_model("cifar_resnet20", weights=None, num_classes=3, input_shape=(16, 16, 3)), PICTURES


def tabular_resnet() -> tuple[keras.Model, Any]:
    return create_model("tabular_resnet", weights=None, num_classes=3, input_shape=(WIDTH,)), X


def pre_norm() -> tuple[keras.Model, Any]:
    return stack(12, norm="layer_norm")


def peri_norm() -> tuple[keras.Model, Any]:
    return stack(12, norm="rms_norm", norm_position="peri")


def post_norm() -> tuple[keras.Model, Any]:
    return stack(6, norm="layer_norm", norm_position="post")


def inverse_sqrt_depth() -> tuple[keras.Model, Any]:
    return stack(50, "inverse_sqrt_depth")


def deepnorm() -> tuple[keras.Model, Any]:
    return stack(120, "deepnorm", norm="layer_norm", norm_position="post")


def rezero() -> tuple[keras.Model, Any]:
    return stack(50, branch_scale=SkipInit())


def transformer() -> tuple[keras.Model, Any]:
    attention = Residual(layers.MultiHeadAttention(2, 8), norm="layer_norm")
    dense = Residual([layers.Dense(32, activation="gelu"), layers.Dense(16)], norm="layer_norm")
    inputs = keras.Input((8, 16))
    x = ResidualStack([attention, dense], 4)(inputs)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(3)(x)), X.reshape(32, 8, 8).repeat(2, axis=-1)


def concatenated() -> tuple[keras.Model, Any]:
    inputs = keras.Input((WIDTH,))
    x = inputs
    for _ in range(3):
        h = layers.Activation("relu")(layers.BatchNormalization()(x))
        x = layers.Concatenate()([x, layers.Dense(8, kernel_initializer="he_normal")(h)])
    return keras.Model(inputs, layers.Dense(3)(x)), X


def plain_and_shallow() -> tuple[keras.Model, Any]:
    hidden = [layers.Dense(WIDTH, activation="relu", kernel_initializer="he_normal") for _ in range(4)]
    return keras.Sequential([keras.Input((WIDTH,)), *hidden, layers.Dense(3)]), X


def hyper_connections() -> tuple[keras.Model, Any]:
    return stack(12, topology="hyper_connections", norm="layer_norm")


def mhc() -> tuple[keras.Model, Any]:
    return stack(12, topology="mhc", norm="layer_norm")


def dense_former() -> tuple[keras.Model, Any]:
    return stack(6, topology="dense_former", norm="layer_norm")


def attention_residuals() -> tuple[keras.Model, Any]:
    return stack(6, topology="attention_residuals", norm="layer_norm")


def trained() -> tuple[keras.Model, Any]:
    model, x = stack(8, norm="layer_norm")
    model.compile(keras.optimizers.Adam(1e-3), LOSS)
    model.fit(x, np.argmax(x[:, :3], axis=1), epochs=20, batch_size=32, verbose=0)
    return model, x


def trained_streams() -> tuple[keras.Model, Any]:
    model, x = mhc()
    model.compile(keras.optimizers.Adam(1e-3), LOSS)
    model.fit(x, np.argmax(x[:, :3], axis=1), epochs=20, batch_size=32, verbose=0)
    return model, x


HEALTHY: dict[str, Callable[[], tuple[keras.Model, Any]]] = {
    "cifar_resnet20": cifar_resnet,
    "tabular_resnet": tabular_resnet,
    "pre_norm": pre_norm,
    "peri_norm": peri_norm,
    "post_norm": post_norm,
    "inverse_sqrt_depth": inverse_sqrt_depth,
    "deepnorm": deepnorm,
    "rezero": rezero,
    "transformer": transformer,
    "concatenated": concatenated,
    "plain_and_shallow": plain_and_shallow,
    "trained": trained,
    "hyper_connections": hyper_connections,
    "mhc": mhc,
    "dense_former": dense_former,
    "attention_residuals": attention_residuals,
    "trained_streams": trained_streams,
}
