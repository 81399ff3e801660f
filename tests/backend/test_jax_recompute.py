"""What a scanned stack keeps of each block for the gradient, in tensors of the size of its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_residual import Residual, ResidualStack, _backend

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the others choose what they keep")

ROWS, MAPS = (64, 64), (64, 16, 16, 8)


def dense(activation: str, rate: float = 0.0) -> Residual:
    dropout = [layers.Dropout(rate)] if rate else []
    return Residual([layers.Dense(64, activation=activation), *dropout, layers.Dense(64)], norm="layer_norm")


def convolutions() -> Residual:
    def conv() -> Any:
        return layers.Conv2D(8, 3, padding="same", use_bias=False)

    norm = layers.BatchNormalization
    return Residual([conv(), norm(), layers.ReLU(), conv(), norm()], activation="relu")


def depthwise() -> Residual:
    branch = [layers.DepthwiseConv2D(3, padding="same"), layers.BatchNormalization(), layers.Activation("silu")]
    return Residual([*branch, layers.Conv2D(8, 1)])


@pytest.mark.parametrize(
    ("block", "shape", "kept"),
    [
        (lambda: dense("relu"), ROWS, 2.0),  # the input, and the first product
        (lambda: dense("gelu"), ROWS, 2.0),  # the exponential and the error function are computed again
        (lambda: dense("relu", rate=0.2), ROWS, 2.25),  # and a mask of bytes
        (convolutions, MAPS, 3.0),  # the input, and both products
        (depthwise, MAPS, 2.0),
        (lambda: Residual([layers.Dense(64, activation="relu")]), ROWS, 1.25),  # where a mask does, no product is kept
        (lambda: Residual([layers.Dense(64), layers.GaussianNoise(0.1), layers.Dense(64)]), ROWS, 2.0),
    ],
)
def test_what_is_kept_of_a_block(block: Callable[[], Residual], shape: tuple[int, ...], kept: float) -> None:
    of_a_block = (temporary(block, shape, depth=60) - temporary(block, shape, depth=20)) / 40
    # Beside it what depends on the channels or on the rows alone, such as the norm's mean.
    assert kept <= of_a_block / (4 * np.prod(shape)) <= kept + 0.06


def temporary(block: Callable[[], Residual], shape: tuple[int, ...], depth: int) -> int:
    """Returns the bytes that the gradient needs beside weights and inputs."""
    import jax

    stack = ResidualStack(block(), depth, execution="scan")
    stack.build(shape)
    trained = [variable.value for variable in stack.trainable_variables]
    state = [variable.value for variable in stack.non_trainable_variables]

    def loss(trained: Any, state: Any, x: Any) -> Any:
        y, state = stack.stateless_call(trained, state, x, training=True)
        return ops.sum(ops.square(y)), state

    program = jax.jit(jax.grad(loss, has_aux=True)).lower(trained, state, np.zeros(shape, "float32"))
    return int(program.compile().memory_analysis().temp_size_in_bytes)


class Checkpointed(layers.Layer):
    """Keeps nothing but its input, by JAX's own means."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = [layers.Dense(64, activation="gelu") for _ in range(4)]

    def build(self, shape: Any) -> None:
        for layer in self.inner:
            layer.build(shape)

    def call(self, x: Any) -> Any:
        import jax

        @jax.checkpoint
        def apply(x: Any, values: Any) -> Any:
            for i, layer in enumerate(self.inner):
                x, _ = layer.stateless_call(values[2 * i : 2 * i + 2], [], x)
            return x

        return apply(x, [variable.value for layer in self.inner for variable in layer.trainable_variables])


@pytest.mark.parametrize(
    "block",
    [
        Checkpointed,
        lambda: ResidualStack(dense("relu"), 8, execution="scan", remat="full"),
        lambda: ResidualStack(dense("relu"), 8, execution="scan", topology="reversible"),
        lambda: layers.GRU(64, return_sequences=True),
    ],
    ids=["checkpoint", "remat", "reversible", "GRU"],
)
def test_what_chooses_for_itself_is_left_alone(block: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (16, 16, 64)
    found = temporary(lambda: Residual(block()), shape, depth=6)
    monkeypatch.setattr(_backend, "recompute_cheap", lambda function: function)
    assert found == temporary(lambda: Residual(block()), shape, depth=6)


@pytest.mark.parametrize("way", ["print", "callback"])
def test_side_effects_are_those_of_a_block_that_is_run_once(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import jax
    from jax.experimental import io_callback

    told: list[Any] = []

    class Tell(layers.Layer):
        def call(self, x: Any) -> Any:
            if way == "print":
                jax.debug.callback(told.append, 2 * x[0, 0])
            else:
                io_callback(told.append, None, jax.lax.stop_gradient(x[0, 0]), ordered=True)
            return x

    stack = ResidualStack(Residual([Tell(), layers.Dense(4, activation="gelu"), layers.Dense(4)]), 5, execution="scan")
    stack.build((2, 4))
    trained = [variable.value for variable in stack.trainable_variables]
    state = [variable.value for variable in stack.non_trainable_variables]
    x = np.ones((2, 4), "float32")

    def times() -> int:
        jax.effects_barrier()
        told.clear()
        gradient = jax.grad(lambda values: ops.sum(stack.stateless_call(values, state, x)[0]))
        jax.jit(gradient)(trained)
        jax.effects_barrier()
        return len(told)

    found = times()
    monkeypatch.setattr(_backend, "recompute_cheap", lambda function: function)
    assert found == times()
    assert way == "callback" or found == 5  # JAX drops the other where only the gradient is asked for
