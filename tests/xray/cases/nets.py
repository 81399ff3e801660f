"""Nets healthy and ill, plain and residual, with what the X-ray must find in each: that and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_residual import Residual

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(64, 16)).astype("float32")
CLASSES = RNG.integers(0, 3, size=64)
PICTURES = RNG.normal(size=(32, 12, 12, 3)).astype("float32")
BYTES = RNG.integers(0, 256, size=(32, 12, 12, 3)).astype("uint8")
SERIES = RNG.normal(size=(32, 60, 4)).astype("float32")
WORDS = RNG.integers(1, 50, size=(32, 20))

Made = tuple[keras.Model, Any, Any]


@dataclass(frozen=True)
class Net:
    """A net with a batch.

    Args:
        make: Returns the compiled model, inputs and targets.
        finds: The rules that speak of it, of several one, each with the beginning of the name of what it names; all
            others are silent.
    """

    make: Callable[[], Made]
    finds: dict[str, str | tuple[str, ...]] = field(default_factory=dict)


def compiled(model: keras.Model, loss: Any = None, optimizer: Any = None) -> keras.Model:
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.Adam(1e-3), loss)
    return model


def chain(parts: Iterable[Any], x: Any = ROWS, y: Any = None, loss: Any = None, head: int = 3) -> Made:
    """Returns layers one after another with a head."""
    dtype = "int32" if x.dtype == WORDS.dtype else None
    model = keras.Sequential([keras.Input(x.shape[1:], dtype=dtype), *parts, layers.Dense(head, name="head")])
    return compiled(model, loss), x, CLASSES[: len(x)] if y is None else y


def dense(count: int, activation: str, initializer: str = "glorot_uniform", width: int = 32) -> list[Any]:
    return [
        layers.Dense(width, activation, kernel_initializer=initializer, name=f"layer_{index}") for index in range(count)
    ]


def convolutions(
    count: int, activation: str, initializer: str = "glorot_uniform", norm: bool = False, filters: int = 8
) -> Made:
    parts: list[Any] = []
    for index in range(count):
        conv = layers.Conv2D(filters, 3, padding="same", kernel_initializer=initializer, use_bias=not norm)
        conv.name = f"layer_{index}"
        parts += [conv, *([layers.BatchNormalization()] if norm else []), layers.Activation(activation)]
    return chain([*parts, layers.GlobalAveragePooling2D()], PICTURES)


def vgg(x: Any = PICTURES, first: Iterable[Any] = ()) -> Made:
    parts: list[Any] = list(first)
    for filters in (8, 16, 32):
        parts += [
            layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_initializer="he_normal")
            for _ in range(2)
        ]
        parts.append(layers.MaxPooling2D())
    return chain([*parts, layers.Flatten(), layers.Dense(32, "relu")], x)


def recurrent(kind: Any, count: int = 1, steps: int = 60, **kwargs: Any) -> Made:
    parts = [kind(8, return_sequences=i < count - 1, name=f"layer_{i}", **kwargs) for i in range(count)]
    return chain(parts, SERIES[:, :steps])


def mlp(width: int = 32) -> list[Any]:
    return [layers.Dense(width, "relu", kernel_initializer="he_normal"), layers.Dense(width)]


def residual(count: int = 8, before: Iterable[Any] = (), behind: Iterable[Any] = (), **kwargs: Any) -> keras.Model:
    inputs = keras.Input((16,))
    x = layers.Dense(32, name="stem")(inputs)
    for part in before:
        x = part(x)
    for index in range(count):
        x = Residual(mlp(), **{"norm": "layer_norm", **kwargs}, name=f"block_{index}")(x)
    for part in behind:
        x = part(x)
    return compiled(keras.Model(inputs, layers.Dense(3, name="head")(x)))


def rows(make: Callable[..., keras.Model], *args: Any, x: Any = ROWS, y: Any = CLASSES, **kwargs: Any) -> Made:
    return make(*args, **kwargs), x, y


def weak_skips(factor: float, activation: str, count: int = 16) -> keras.Model:
    """Returns sums by hand, with a factor on the shortcut."""
    inputs = keras.Input((16,))
    x = layers.Dense(32)(inputs)
    for index in range(count):
        branch = layers.Dense(32, activation)(layers.Dense(32, activation)(x))
        x = layers.Add(name=f"block_{index}")([layers.Rescaling(factor)(x), branch])
    return compiled(keras.Model(inputs, layers.Dense(3)(x)))


def transformer(count: int, *, post: bool) -> Made:
    words = keras.Input((20,), dtype="int32")
    x = layers.Embedding(50, 16)(words) + layers.Embedding(20, 16)(ops.arange(20))
    for _ in range(count):
        for of in (
            lambda h: layers.MultiHeadAttention(2, 8)(h, h),
            lambda h: layers.Dense(16)(layers.Dense(32, "gelu")(h)),
        ):
            if post:
                x = layers.LayerNormalization()(layers.Add()([x, of(x)]))
            else:
                x = layers.Add()([x, of(layers.LayerNormalization()(x))])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return compiled(keras.Model(words, layers.Dense(3)(x))), WORDS, CLASSES[:32]


def one_connection_behind_sigmoids() -> keras.Model:
    inputs = keras.Input((16,))
    x = inputs
    for part in dense(16, "sigmoid"):
        x = part(x)
    x = layers.Add()([x, layers.Dense(32, "relu")(x)])
    return compiled(keras.Model(inputs, layers.Dense(3)(x)))


def autoencoder() -> Made:
    parts = [layers.Dense(32, "relu"), layers.Dense(4), layers.Dense(32, "relu")]
    return chain(parts, ROWS, ROWS, "mse", head=16)


def two_inputs(scale: float) -> Made:
    a, b = keras.Input((16,), name="a"), keras.Input((8,), name="b")
    x = layers.Concatenate()([layers.Dense(16)(a), layers.Dense(16)(b)])
    for _ in range(2):
        x = Residual(mlp(), norm="layer_norm")(x)
    model = keras.Model({"a": a, "b": b}, layers.Dense(3)(x))
    return compiled(model), {"a": ROWS, "b": scale * ROWS[:, :8]}, CLASSES


def sgd(model: keras.Model) -> keras.Model:
    return compiled(model, optimizer=keras.optimizers.SGD(0.1))


def powers_of_four() -> Made:
    """Returns the fit of y = x^4 for numbers up to 100, with none of them scaled, about which people ask."""
    x = np.linspace(-100, 100, 64)[:, None].astype("float32")
    return chain([layers.Dense(50, "sigmoid"), layers.Dense(50, "elu")], x, x**4, "mse", head=1)


def labels_from_one() -> Made:
    model, x, _ = vgg()
    return model, x, 1 + CLASSES[:32]


def with_column(values: Any) -> Any:
    found = ROWS.copy()
    found[:, 3] = values
    return found


def norms_without_weights() -> Made:
    norms = (layers.BatchNormalization(center=False, scale=False) for _ in range(3))
    return chain([part for norm in norms for part in (layers.Dense(32), norm, layers.ReLU())])


def generator() -> Made:
    """Returns a generator with the critic that it is to convince: all of it is to be called real."""
    critic = keras.Sequential([keras.Input((16,)), layers.Dense(16, "leaky_relu"), layers.Dense(1)])
    critic.trainable = False
    inputs = keras.Input((16,))
    made = layers.Dense(16)(layers.Dense(32, "leaky_relu")(inputs))
    model = keras.Model(inputs, critic(made))
    return compiled(model, keras.losses.BinaryCrossentropy(from_logits=True)), ROWS, np.ones((64, 1), "float32")


VANISHES = "gradient_vanishes"
GROWS = "gradient_explodes|gradient_grows"  # by how evenly it grows, which differs from draw to draw
FIRST = {VANISHES: "layer_0"}

NETS: dict[str, Net] = {
    # --- Layers without shortcuts ---
    "relu_4": Net(lambda: chain(dense(4, "relu", "he_normal"))),
    "relu_60": Net(lambda: chain(dense(60, "relu", "he_normal", 128)), {"samples_alike": "layer_"}),
    "relu_30_glorot": Net(lambda: chain(dense(30, "relu")), FIRST),
    "selu_30": Net(lambda: chain(dense(30, "selu", "lecun_normal", 64))),
    "gelu_3": Net(lambda: chain(dense(3, "gelu", "he_normal"))),
    "tanh_10": Net(lambda: chain(dense(10, "tanh"))),
    "sigmoid_1": Net(lambda: chain(dense(1, "sigmoid"))),
    "sigmoid_2": Net(lambda: chain(dense(2, "sigmoid"))),
    "sigmoid_4_of_500": Net(lambda: chain(dense(4, "sigmoid", width=500)), FIRST),
    "sigmoid_10": Net(lambda: chain(dense(10, "sigmoid")), FIRST),
    "hard_sigmoid_10": Net(lambda: chain(dense(10, "hard_sigmoid")), FIRST),
    "softplus_12": Net(lambda: chain(dense(12, "softplus")), FIRST),
    "linear_stem_and_sigmoid_30": Net(
        lambda: chain([layers.Dense(32, name="stem"), *dense(30, "sigmoid")]), {VANISHES: "stem"}
    ),
    "linear_stem_and_relu_6": Net(lambda: chain([layers.Dense(32, name="stem"), *dense(6, "relu", "he_normal")])),
    "autoencoder_with_a_linear_code": Net(autoencoder),
    "convolutions_sigmoid_10": Net(lambda: convolutions(10, "sigmoid"), FIRST),
    "convolutions_relu_16_glorot": Net(lambda: convolutions(16, "relu"), FIRST),
    "convolutions_tanh_6": Net(lambda: convolutions(6, "tanh")),
    "convolutions_relu_5": Net(lambda: convolutions(5, "relu", "he_normal")),
    "convolutions_norm_6": Net(lambda: convolutions(6, "relu", "he_normal", norm=True)),
    "convolutions_norm_50": Net(
        lambda: convolutions(50, "relu", "he_normal", norm=True, filters=16), {GROWS: "layer_0"}
    ),
    "vgg": Net(vgg),
    "norms_without_weights": Net(norms_without_weights),
    "generator_with_a_frozen_critic": Net(generator),
    # --- Recurrent ---
    "simple_rnn_8_steps": Net(lambda: recurrent(layers.SimpleRNN, steps=8)),
    "simple_rnn_60_steps": Net(lambda: recurrent(layers.SimpleRNN), FIRST),
    "simple_rnn_sigmoid_60_steps": Net(lambda: recurrent(layers.SimpleRNN, activation="sigmoid"), FIRST),
    "simple_rnn_8_layers": Net(lambda: recurrent(layers.SimpleRNN, 8, 6, activation="sigmoid"), FIRST),
    "lstm": Net(lambda: recurrent(layers.LSTM)),
    "gru": Net(lambda: recurrent(layers.GRU)),
    "lstm_2": Net(lambda: recurrent(layers.LSTM, 2, 12)),
    # --- With shortcuts ---
    "residual": Net(lambda: rows(residual)),
    "residual_40": Net(lambda: rows(residual, 40)),
    "residual_without_norm": Net(lambda: rows(residual, 10, norm=None), {"gradient_explodes": "block_0"}),
    "skips_by_a_tenth": Net(lambda: rows(residual, 4, skip_scale=0.1), {"skip_scaled": "block_0"}),
    "weak_skips_and_sigmoids": Net(lambda: rows(weak_skips, 0.1, "sigmoid"), {VANISHES: "block_0"}),
    "weak_skips_and_small_relus": Net(lambda: rows(weak_skips, 0.1, "relu"), {VANISHES: "block_0"}),
    "sigmoids_in_front_of_blocks": Net(
        lambda: rows(residual, 6, before=dense(14, "sigmoid")), {VANISHES: ("stem", "layer_")}
    ),
    "sigmoids_behind_blocks": Net(lambda: rows(residual, 6, behind=dense(14, "sigmoid")), {VANISHES: "block_0"}),
    "relus_in_front_of_blocks": Net(lambda: rows(residual, 6, before=dense(2, "relu", "he_normal"))),
    "one_connection_behind_sigmoids": Net(lambda: rows(one_connection_behind_sigmoids), {VANISHES: "layer_0"}),
    "highway_40": Net(lambda: rows(residual, 40, norm=None, merge="highway"), {VANISHES: "block_0"}),
    "transformer_pre_norm_4": Net(lambda: transformer(4, post=False)),
    "transformer_pre_norm_12": Net(lambda: transformer(12, post=False)),
    "transformer_post_norm_3": Net(lambda: transformer(3, post=True)),
    # --- What goes in, and what is to come out ---
    "rows_times_10000": Net(lambda: rows(lambda: sgd(residual()), x=1e4 * ROWS), {"input_scale": "input"}),
    "rows_times_a_millionth": Net(lambda: rows(residual, x=1e-6 * ROWS), {"input_scale": "input"}),
    "rows_times_10000_into_layers": Net(
        lambda: chain(dense(3, "relu", "he_normal"), 1e4 * ROWS), {"input_scale": "input"}
    ),
    "rows_times_10000_with_a_norm_in_front": Net(
        lambda: chain([layers.BatchNormalization(), *dense(3, "relu", "he_normal")], 1e4 * ROWS)
    ),
    "rows_times_10000_with_a_norm_behind": Net(
        lambda: chain([layers.Dense(32), layers.BatchNormalization(), *dense(3, "relu", "he_normal")], 1e4 * ROWS)
    ),
    "one_of_two_inputs_times_10000": Net(lambda: two_inputs(1e4), {"input_scale": "input 'b'"}),
    "rows_beyond_float32": Net(lambda: rows(residual, 3, norm=None, x=1e30 * ROWS), {"input_scale": "input"}),
    "two_inputs": Net(lambda: two_inputs(1.0)),
    "bytes": Net(lambda: vgg(BYTES), {"input_scale": "input"}),
    "bytes_rescaled": Net(lambda: vgg(BYTES, [layers.Rescaling(1 / 127.5, offset=-1)])),
    "a_column_of_ones": Net(lambda: rows(residual, x=with_column(1.0)), {"constant_inputs": "input"}),
    "a_column_of_zeros": Net(lambda: rows(residual, x=with_column(0.0)), {"constant_inputs": "input"}),
    "rare_categories": Net(lambda: rows(residual, x=np.eye(16, dtype="float32")[np.arange(64) % 14])),
    "one_sample_over_and_over": Net(lambda: rows(residual, x=np.repeat(ROWS[:1], 64, 0)), {"constant_inputs": "input"}),
    "labels_from_one": Net(labels_from_one, {"labels_out_of_range": "targets"}),
    "labels_of_one_class": Net(lambda: rows(residual, y=np.ones(64, int)), {"labels_alike": "targets"}),
    "a_hundred_outputs_for_three_classes": Net(lambda: chain(dense(2, "relu"), head=100), {"labels_alike": "targets"}),
    "powers_of_four": Net(powers_of_four, {"input_scale": "input", "target_scale": "targets"}),
}
