"""Nets with one fault planted in each: the rule that must name it, and the block where it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_residual import Residual, ResidualStack

WIDTH = 16
BATCH = 64
X = np.random.default_rng(0).normal(size=(BATCH, WIDTH)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, size=BATCH)
DEPTH = 6


@dataclass(frozen=True)
class Fault:
    """A net with one fault.

    Args:
        make: Returns the net, and what to X-ray it with.
        rule: Name of the rule that must speak.
        block: Name of the block that it must name.
        change: What its advice must contain.
    """

    make: Callable[[], keras.Model]
    rule: str
    block: str
    change: str


def branch(activation: str | None = "relu", **kwargs: Any) -> list[keras.Layer]:
    initializer = keras.initializers.HeNormal
    return [
        layers.Dense(WIDTH, activation=activation, kernel_initializer=initializer(), **kwargs),
        layers.Dense(WIDTH, kernel_initializer="lecun_normal"),
    ]


def block(index: int, parts: list[keras.Layer] | None = None, **kwargs: Any) -> Residual:
    return Residual(branch() if parts is None else parts, **{"norm": "layer_norm", **kwargs}, name=f"block_{index}")


def net(different: dict[int, keras.Layer] | None = None, **kwargs: Any) -> keras.Model:
    """Returns six residual blocks with a head; those at the indices of `different` are other ones."""
    inputs = keras.Input((WIDTH,))
    x = inputs
    for index in range(DEPTH):
        x = (different or {}).get(index, block(index, **kwargs))(x)
    return keras.Model(inputs, layers.Dense(3)(x))


def in_a_stack(depth: int, **kwargs: Any) -> keras.Model:
    inputs = keras.Input((WIDTH,))
    x = ResidualStack(Residual(branch(), **kwargs), depth, name="stack")(inputs)
    return keras.Model(inputs, layers.Dense(3)(x))


def post_norm_200() -> keras.Model:
    return in_a_stack(200, norm="layer_norm", norm_position="post")


def no_norm_100() -> keras.Model:
    return in_a_stack(100)


def learning_rate_times_100() -> keras.Model:
    model = net()
    model.compile(keras.optimizers.Adam(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def dead_relus() -> keras.Model:
    bias = keras.initializers.Constant(-20.0)
    return net({3: block(3, branch(bias_initializer=bias))})


def unused_branch() -> keras.Model:
    return net({2: block(2, branch_scale=0.0)})


def frozen_block() -> keras.Model:
    model = net()
    model.get_layer("block_4").trainable = False
    return model


def skip_by_half() -> keras.Model:
    return net({3: block(3, skip_scale=0.5)})


def float16_underflow() -> keras.Model:
    keras.config.set_dtype_policy("float16")
    narrow = layers.Dense(WIDTH, kernel_initializer=keras.initializers.RandomNormal(stddev=1e-4))
    kwargs: Any = {"norm": None, "branch_scale": 0.3}
    return net({3: block(3, shortcut=narrow, norm=None, branch_scale=1e-4)}, **kwargs)


class RootOfANegative(keras.layers.Layer):
    """Adds nothing, times the root of what is negative."""

    def call(self, inputs: Any) -> Any:
        return inputs + 0.0 * ops.sqrt(-1.0 - ops.square(inputs))


def nan_in_block() -> keras.Model:
    return net({1: block(1, [*branch(), RootOfANegative()])})


def missing_activation() -> keras.Model:
    return net({2: block(2, branch(None))})


def duplicated_blocks() -> keras.Model:
    model = net()
    model.get_layer("block_4").set_weights(model.get_layer("block_2").get_weights())
    return model


def saturating_sigmoid() -> keras.Model:
    wide = layers.Dense(WIDTH, activation="sigmoid", kernel_initializer=keras.initializers.RandomNormal(stddev=20.0))
    return net({4: block(4, [wide, layers.Dense(WIDTH)])})


FAULTS = {
    "post_norm_200": Fault(post_norm_200, "post_norm", "stack.0", "deepnorm"),
    "no_norm_100": Fault(no_norm_100, "signal_grows", "stack.", "inverse_sqrt_depth"),
    "learning_rate_times_100": Fault(learning_rate_times_100, "learning_rate", "block_", "learning_rate"),
    "dead_relus": Fault(dead_relus, "dead_units", "block_3", "rate of learning"),
    "unused_branch": Fault(unused_branch, "unused_branch", "block_2", "skip_init"),
    "frozen_block": Fault(frozen_block, "frozen", "block_4", "trainable"),
    "skip_by_half": Fault(skip_by_half, "skip_scaled", "block_3", "skip_scale"),
    "float16_underflow": Fault(float16_underflow, "underflow", "block_3", "mixed_float16"),
    "nan_in_block": Fault(nan_in_block, "not_a_number", "block_1", "weights"),
    "missing_activation": Fault(missing_activation, "missing_activation", "block_2", "activation"),
    "duplicated_blocks": Fault(duplicated_blocks, "duplicate", "block_4", "block"),
    "saturating_sigmoid": Fault(saturating_sigmoid, "saturated_units", "block_4", "norm"),
}
