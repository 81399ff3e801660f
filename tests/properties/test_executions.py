"""Blocks with whatever Keras lets a layer have take the same three steps of training, scanned and unrolled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import constraints, initializers, layers, ops, regularizers

from backend_helpers import double_precision
from keras_residual import Residual, ResidualStack

CASES = 48
SHAPES = {"vector": (8, 6), "maps": (4, 5, 5, 4), "sequence": (4, 5, 4)}


class Penalised(layers.Layer):
    """Adds a loss of its own."""

    def call(self, inputs: Any) -> Any:
        self.add_loss(0.02 * ops.mean(ops.square(inputs)))
        return inputs


class Counting(layers.Layer):
    """Has state that is no statistic: its calls in training, by which it scales."""

    def build(self, input_shape: Any) -> None:
        del input_shape
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, name="count")

    def call(self, inputs: Any, training: bool = False) -> Any:
        if training:
            self.count.assign_add(1.0)
        return inputs * (1 + 0.1 * ops.cast(self.count, inputs.dtype))


class Noisy(layers.Layer):
    """Draws from a generator of its own, with a seed."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(7)

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training:
            return inputs
        return inputs + 0.1 * keras.random.normal(ops.shape(inputs), seed=self.generator, dtype=inputs.dtype)


class MadeEarly(layers.Layer):
    """Has its weight before it is built."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        start = initializers.Constant(0.5)
        self.factor = self.add_weight(
            shape=(), initializer=start, regularizer="l2", constraint="non_neg", name="factor"
        )

    def call(self, inputs: Any) -> Any:
        return inputs * self.factor


REGULARIZERS = [None, None, regularizers.L2(0.02), regularizers.L1L2(0.01, 0.01)]
INITIALIZERS = [
    "glorot_uniform",
    initializers.Orthogonal(1.5),
    initializers.VarianceScaling(0.5, "fan_out", "untruncated_normal"),
    initializers.RandomNormal(0.0, 0.3, seed=5),
]


def kernel_options(choose: Callable[[Any], Any], axes: Any, prefix: str = "kernel") -> dict[str, Any]:
    """Options of a kernel whose norms are taken over `axes` in one block."""
    norms = [
        None,
        constraints.MaxNorm(0.4, axis=axes),
        constraints.UnitNorm(axis=axes),
        constraints.MinMaxNorm(0.3, 0.5, 0.5, axis=axes),
        constraints.NonNeg(),
    ]
    return {
        f"{prefix}_regularizer": choose(REGULARIZERS),
        f"{prefix}_constraint": choose(norms),
        f"{prefix}_initializer": choose(INITIALIZERS),
        "bias_constraint": choose([None, constraints.MaxNorm(0.01, axis=0)]),
        "activity_regularizer": choose([None, None, regularizers.L2(0.02)]),
    }


def branch_of(kind: str, choose: Callable[[Any], Any]) -> list[keras.Layer]:
    options = lambda axes=0, prefix="kernel": kernel_options(choose, axes, prefix)  # noqa: E731
    mapped: dict[str, list[Callable[[], keras.Layer]]] = {
        "vector": [
            lambda: layers.Dense(6, activation="tanh", **options()),
            lambda: keras.Sequential([layers.Dense(8, activation="tanh", **options()), layers.Dense(6)]),
            lambda: layers.Dense(6, kernel_regularizer=regularizers.OrthogonalRegularizer(0.02)),
        ],
        "maps": [
            lambda: layers.Conv2D(4, 3, padding="same", **options([0, 1, 2])),
            lambda: layers.Conv2D(4, 3, padding="same", groups=2, **options([0, 1, 2])),
            lambda: layers.DepthwiseConv2D(3, padding="same", **options([0, 1], "depthwise")),
            lambda: layers.Conv2DTranspose(4, 3, padding="same"),
        ],
        "sequence": [
            lambda: layers.GRU(4, return_sequences=True, dropout=0.2, recurrent_constraint=constraints.MaxNorm(0.5)),
            lambda: layers.Bidirectional(layers.LSTM(2, return_sequences=True, kernel_regularizer="l2")),
            lambda: layers.MultiHeadAttention(2, 3, dropout=0.2, kernel_constraint=constraints.MaxNorm(0.3)),
            lambda: layers.TimeDistributed(layers.Dense(4, **options())),
        ],
    }
    others: list[Callable[[], keras.Layer]] = [
        lambda: layers.BatchNormalization(momentum=0.5, gamma_regularizer="l2", beta_constraint="non_neg"),
        lambda: layers.LayerNormalization(gamma_constraint=constraints.MaxNorm(0.5, axis=0)),
        lambda: layers.Dropout(0.3, seed=choose([None, 3])),
        lambda: layers.GaussianNoise(0.3),
        lambda: layers.PReLU(alpha_regularizer="l2"),
        lambda: layers.ActivityRegularization(0.02, 0.02),
        Penalised,
        Counting,
        Noisy,
        MadeEarly,
    ]
    parts = [choose(mapped[kind])(), choose(others)(), choose(others)()]
    parts[choose([0, 1])].trainable = choose([True, True, False])
    return parts


def steps(seed: int, execution: str) -> dict[str, np.ndarray]:
    """Returns losses, weights and predictions after three steps of a model that the seed draws."""
    rng = np.random.default_rng(seed)

    def choose(values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    keras.utils.set_random_seed(seed)
    kind = choose(list(SHAPES))
    topology = choose(["single", "single", "single", "euler", "x0_skip", "hyper_connections"])
    norm = choose([None, "layer_norm", "batch_norm"])
    block = Residual(branch_of(kind, choose), norm=norm, branch_scale=choose([0.5, "layer_scale", "skip_init"]))
    remat = choose([False, False, "full", "sqrt"])
    rates = choose([0.0, (0.0, 0.375)])  # of which no block's rate is rounded
    make_optimizer = choose(
        [
            lambda: keras.optimizers.SGD(0.002, momentum=0.9),
            lambda: keras.optimizers.AdamW(0.003, weight_decay=0.1),
            lambda: keras.optimizers.SGD(0.01, clipnorm=0.05),
        ]
    )
    shape = SHAPES[kind]
    x = rng.normal(size=shape)
    inputs = keras.Input(shape[1:])
    stack = ResidualStack(block, 4, topology=topology, execution=execution, remat=remat, drop_path_rate=rates)
    outputs = layers.Dense(2)(layers.Flatten()(stack(inputs)))
    model = keras.Model(inputs, outputs)
    model.compile(make_optimizer(), "mse")
    y = rng.normal(size=(shape[0], 2))
    losses = [model.train_on_batch(x, y) for _ in range(3)]
    found = {"losses": np.array(losses, "float64"), **stack.get_stacked_weights()}
    return found | {"head": model.layers[-1].get_weights()[0], "predicted": model.predict(x, verbose=0)}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(CASES))
def test_three_steps_are_the_same(seed: int) -> None:
    if keras.backend.backend() == "tensorflow":
        keras.config.set_floatx("float64")  # else Keras adds the losses of two types, and fails
    with double_precision():  # in which what differs by more than rounding shows
        expected, found = steps(seed, "unrolled"), steps(seed, "scan")
    # Automatic names count on from one stack to the next.
    for (name, value), other in zip(expected.items(), found.values(), strict=True):
        assert value.dtype == np.float64
        assert other.shape == value.shape
        # A bias before a norm is nothing but rounding.
        error = np.abs(other - value).max() / max(np.abs(value).max(), 1e-3)
        assert error <= 1e-6, f"{name} differs by {error:.2g} of its maximum"
