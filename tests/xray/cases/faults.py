"""Nets with one fault planted in each: the rule that must name it, and the block where it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_residual import Residual, ResidualStack, topologies

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


def in_a_stack(depth: int, topology: Any = "single", **kwargs: Any) -> keras.Model:
    inputs = keras.Input((WIDTH,))
    x = ResidualStack(Residual(branch(), **kwargs), depth, topology=topology, name="stack")(inputs)
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


def compiled(model: keras.Model, loss: Any = None, rate: float = 1e-3) -> keras.Model:
    model.compile(keras.optimizers.Adam(rate), loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def plain(
    initializer: Callable[[], Any] = keras.initializers.HeNormal, bias: float = 0.0, ending: str | None = None
) -> keras.Model:
    """Returns six layers with a head; `bias` is that of the third."""
    model = keras.Sequential([keras.Input((WIDTH,))])
    for index in range(DEPTH):
        constant = keras.initializers.Constant(bias if index == 2 else 0.0)
        settings: Any = {"kernel_initializer": initializer(), "bias_initializer": constant}
        model.add(layers.Dense(WIDTH, activation="relu", **settings, name=f"layer_{index}"))
    model.add(layers.Dense(3, activation=ending, name="head"))
    return model


def softmax_twice() -> keras.Model:
    return compiled(plain(ending="softmax"))


def head_of_zeros_with_a_softmax_too_many() -> keras.Model:
    inputs = keras.Input((WIDTH,))
    x = block(1)(block(0)(inputs))
    head = layers.Dense(3, activation="softmax", kernel_initializer="zeros", name="head")
    return compiled(keras.Model(inputs, head(x)))


def no_softmax() -> keras.Model:
    return compiled(plain(), "sparse_categorical_crossentropy")


def rate_of_zero() -> keras.Model:
    return compiled(net(), rate=0.0)


def large_weights() -> keras.Model:
    return plain(lambda: keras.initializers.RandomNormal(stddev=1.5))


def large_weights_in_branches() -> keras.Model:
    def dense(activation: str | None = None) -> keras.Layer:
        return layers.Dense(WIDTH, activation, kernel_initializer=keras.initializers.RandomNormal(stddev=2.0))

    return net({index: block(index, [dense("relu"), dense()]) for index in range(DEPTH)})


def small_weights() -> keras.Model:
    return plain(lambda: keras.initializers.RandomNormal(stddev=0.02))


def dead_layer() -> keras.Model:
    return plain(bias=-50.0)


def multi_stream(depth: int, topology: Any, weights: dict[str, Any]) -> keras.Model:
    """Returns a pre-norm net of several streams; each of the weights of its links is what a function makes of it."""
    model = in_a_stack(depth, norm="layer_norm", topology=topology)
    stack = model.get_layer("stack")
    found = stack.get_stacked_weights()
    names = {wanted: next(name for name in found if name.endswith(f"link_0/{wanted}")) for wanted in weights}
    stack.set_stacked_weights({name: weights[wanted](found[name]) for wanted, name in names.items()})
    return model


def free_streams_that_grow() -> keras.Model:
    def grown(alpha: Any) -> Any:
        return np.concatenate([alpha[..., :1], 1.2 * alpha[..., 1:]], axis=-1)

    return multi_stream(40, topologies.HyperConnections(4, dynamic=False), {"alpha": grown})


def free_streams_that_die() -> keras.Model:
    def shrunk(alpha: Any) -> Any:
        return np.concatenate([alpha[..., :1], 0.8 * alpha[..., 1:]], axis=-1)

    return multi_stream(40, topologies.HyperConnections(4, dynamic=False), {"alpha": shrunk})


def streams_that_collapse() -> keras.Model:
    def mixed(bias: Any) -> Any:
        bias = bias.copy()
        for index in range(6):  # each block writes to one stream, and leaves all in place
            bias[index, 4:8] = -4.0
            bias[index, 4 + index % 4] = 4.0
            bias[index, 8:] = 8.0 * np.eye(4).ravel()
        bias[6:, 8:] = 0.0  # the mean of all
        return bias

    return multi_stream(12, "mhc", {"bias": mixed})


def sinkhorn_that_has_not_ended() -> keras.Model:
    def large(bias: Any) -> Any:
        bias = bias.copy()
        bias[3, 8:] = 20 * np.random.default_rng(0).normal(size=16)
        return bias

    return multi_stream(6, "mhc", {"bias": large})


FAULTS = {
    "post_norm_200": Fault(post_norm_200, "post_norm", "stack.0", "deepnorm"),
    "no_norm_100": Fault(no_norm_100, "signal_grows", "stack.", "inverse_sqrt_depth"),
    "learning_rate_times_100": Fault(learning_rate_times_100, "learning_rate", "block_", "learning_rate"),
    "dead_relus": Fault(dead_relus, "dead_units", "block_3", "learning rate"),
    "unused_branch": Fault(unused_branch, "unused_branch", "block_2", "skip_init"),
    "frozen_block": Fault(frozen_block, "frozen", "block_4", "trainable"),
    "skip_by_half": Fault(skip_by_half, "skip_scaled", "block_3", "skip_scale"),
    "float16_underflow": Fault(float16_underflow, "underflow", "block_3", "mixed_float16"),
    "nan_in_block": Fault(nan_in_block, "not_a_number", "block_1", "roots"),
    "missing_activation": Fault(missing_activation, "missing_activation", "block_2", "activation"),
    "duplicated_blocks": Fault(duplicated_blocks, "duplicate", "block_4", "block"),
    "saturating_sigmoid": Fault(saturating_sigmoid, "saturated_units", "block_4", "norm"),
    "softmax_twice": Fault(softmax_twice, "softmax_twice", "head", "from_logits=False"),
    "head_of_zeros_with_a_softmax_too_many": Fault(
        head_of_zeros_with_a_softmax_too_many, "softmax_twice", "head", "no activation"
    ),
    "no_softmax": Fault(no_softmax, "softmax_missing", "head", "activation='softmax'"),
    "rate_of_zero": Fault(rate_of_zero, "no_step", "block_0", "learning_rate"),
    "large_weights": Fault(large_weights, "signal_grows", "layer_", "he_normal"),
    "large_weights_in_branches": Fault(large_weights_in_branches, "gradient_grows", "block_0", "he_normal"),
    "small_weights": Fault(small_weights, "gradient_vanishes", "layer_0", "he_normal"),
    "dead_layer": Fault(dead_layer, "dead_layer", "layer_2", "he_normal"),
    "free_streams_that_grow": Fault(free_streams_that_grow, "transport_gain", "stack.18", "'mhc'"),
    "free_streams_that_die": Fault(free_streams_that_die, "transport_gain", "stack.15", "'mhc'"),
    "streams_that_collapse": Fault(streams_that_collapse, "streams_alike", "stack.6", "identity_hyper_connections"),
    "sinkhorn_that_has_not_ended": Fault(sinkhorn_that_has_not_ended, "double_stochasticity", "stack.3", "mhc_lite"),
}
