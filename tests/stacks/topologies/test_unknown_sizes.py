"""Stacks in a model whose inputs have sizes that nobody knows before the data comes, as TensorFlow then compiles it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from contract import assert_close, to_numpy
from keras_residual import Residual, ResidualStack
from keras_residual.layers.value_attention import ValueResidualAttention
from keras_residual.stacks.topologies import TOPOLOGIES
from keras_residual.stacks.topologies.base import Topology
from keras_residual.stacks.topologies.hyper_connections import HyperConnections

RNG = np.random.default_rng(3)


class Doubled(keras.layers.Layer):
    """A branch that works on any data format and any size."""

    def call(self, x: Any) -> Any:
        return 2 * x


def compare_sizes(made: ResidualStack, unknown: tuple[int | None, ...], sizes: list[tuple[int, ...]]) -> None:
    """Raises where a compiled model does not give at each size what the stack gives by itself."""
    inputs = keras.Input(unknown)
    outputs = made(inputs)
    assert outputs.shape == (None, *unknown)
    model = keras.Model(inputs, outputs)
    for size in sizes:
        x = RNG.normal(size=(3, *size)).astype("float32")
        # Two batches of two sizes: the second one is smaller.
        assert_close(model.predict(x, batch_size=2, verbose=0), to_numpy(made(x)), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_sequences_of_any_length(name: str) -> None:
    block = [
        Residual(ValueResidualAttention(2, 4), norm="rms_norm"),
        Residual(keras.layers.Dense(8, activation="tanh"), norm="rms_norm"),
    ]
    compare_sizes(ResidualStack(block, 3, topology=name), (None, 8), [(5, 8), (7, 8)])


@pytest.mark.parametrize("execution", ["unrolled", "scan"])
@pytest.mark.parametrize("streams", [1, 3])
def test_static_hyper_connections_of_channels_first_maps_of_any_size(streams: int, execution: str) -> None:
    """Of which the last axis, by which streams lie beside each other, has no known length."""
    keras.config.set_image_data_format("channels_first")
    topology = HyperConnections(streams, dynamic=False)
    compare_sizes(_doubling(topology, execution), (4, None, None), [(4, 5, 6), (4, 3, 2)])


@pytest.mark.parametrize("name", ["euler", "x0_skip", "unet", "dense_former", "reversible"])
def test_others_of_channels_first_maps_of_any_size(name: str) -> None:
    keras.config.set_image_data_format("channels_first")
    compare_sizes(_doubling(name, "auto"), (4, None, None), [(4, 5, 6), (4, 3, 2)])


def _doubling(topology: str | Topology, execution: str) -> ResidualStack:
    return ResidualStack(Residual(Doubled()), 3, topology=topology, execution=execution)


@pytest.mark.parametrize("depth", [4, 5])  # groups of equal sizes, and one that is left over
def test_a_mask_for_each_sample_of_a_batch_of_unknown_size(depth: int) -> None:
    made = ResidualStack(Residual(keras.layers.Dense(6, activation="tanh")), depth, execution="scan", remat="sqrt")
    inputs, mask = keras.Input((6,)), keras.Input((depth,))
    model = keras.Model([inputs, mask], made(inputs, block_mask=mask))
    model.compile("sgd", "mse")
    x, masks = RNG.normal(size=(5, 6)).astype("float32"), (RNG.random((5, depth)) < 0.5).astype("float32")
    assert_close(model.predict([x, masks], batch_size=2, verbose=0), to_numpy(made(x, block_mask=masks)), 1e-5)
    before = to_numpy(made(x))
    model.fit([x, masks], x, batch_size=2, verbose=0)
    assert np.abs(to_numpy(made(x)) - before).max() > 0
