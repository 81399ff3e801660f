"""What a scanned stack keeps of each block for the gradient, in tensors of the size of its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_residual import Residual, ResidualStack

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
    ],
)
def test_only_products_are_kept(block: Callable[[], Residual], shape: tuple[int, ...], kept: float) -> None:
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
