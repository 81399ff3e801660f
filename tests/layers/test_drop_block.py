"""DropBlock: which positions go for given draws, what is left, and that the mean stays."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
from keras import ops

from backend_helpers import gradients
from contract import assert_close, assert_layer_contract, to_numpy
from keras_residual.layers.drop_block import DropBlock2D

X = np.random.default_rng(0).normal(2, size=(8, 9, 10, 3)).astype("float32")


def layer_of(*arguments, data_format="channels_last", **kwargs) -> DropBlock2D:
    return DropBlock2D(*arguments, data_format=data_format, **kwargs)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_contract(data_format) -> None:
    def make() -> keras.Layer:
        return DropBlock2D(0.2, 3, gamma_scale=0.5, data_format=data_format)

    assert_layer_contract(make, (3, 6, 5, 4), output_shape=(3, 6, 5, 4))


def gamma(rate, scale, block, height, width):
    rows, columns = min(block, height), min(block, width)
    return scale * rate * height * width / (rows * columns * (height - rows + 1) * (width - columns + 1))


def reference(x, draws, probability, block):
    """The map by loops, channels last: a block of even size reaches one further up and to the left."""
    kept = np.ones(draws.shape, bool)
    _, height, width = draws.shape
    rows, columns = min(block, height), min(block, width)
    for b, i, j in zip(*np.nonzero(draws < probability), strict=True):
        top, left = max(i - rows // 2, 0), max(j - columns // 2, 0)
        kept[b, top : i + (rows - 1) // 2 + 1, left : j + (columns - 1) // 2 + 1] = False
    return np.where(kept[..., None], x / kept.mean(), 0).astype("float32")


@pytest.mark.parametrize("block", [1, 2, 3, 4, 7, 9])
@pytest.mark.parametrize(
    ("data_format", "size"), [("channels_last", (9, 10)), ("channels_first", (5, 8)), ("channels_last", (1, 4))]
)
def test_blocks_of_given_draws(size, block, data_format, monkeypatch) -> None:
    rng = np.random.default_rng(block)
    draws = rng.random((8, *size)).astype("float32")
    monkeypatch.setattr(keras.random, "uniform", lambda *args, **kwargs: ops.convert_to_tensor(draws))
    x = rng.normal(size=(8, *size, 3)).astype("float32")
    rate = 0.2 if block < 5 else 0.04
    layer = layer_of(rate, block, gamma_scale=1.5, data_format=data_format)
    y = to_numpy(layer(x if data_format == "channels_last" else np.moveaxis(x, -1, 1), training=True))
    y = y if data_format == "channels_last" else np.moveaxis(y, 1, -1)
    expected = reference(x, draws, gamma(rate, 1.5, block, *size), block)
    assert 0 < (expected == 0).mean() < 1, "the test has dropped nothing, or all"
    assert_close(y, expected)


def test_mean_over_the_map_and_the_share_that_is_dropped() -> None:
    layer = layer_of(0.1, 3, seed=1)
    ones = np.ones((64, 32, 32, 2), "float32")
    y = to_numpy(layer(ones, training=True))
    assert y.mean() == pytest.approx(1.0, abs=1e-5)
    assert (y[..., 0] == y[..., 1]).all(), "the channels of a position differ"
    # Blocks overlap, and start at the border too: 65536 positions of a rate of 0.1.
    assert 0.08 < (y == 0).mean() < 0.13


@pytest.mark.parametrize("training", [None, False])
def test_does_nothing_at_inference(training) -> None:
    assert_close(layer_of(0.9)(X, training=training), X, 0)


def test_rate_zero_does_nothing() -> None:
    assert_close(layer_of(0.0)(X, training=True), X, 0)


def test_draws_follow_the_seed_and_move_on() -> None:
    first, second = layer_of(0.2, 2, seed=7), layer_of(0.2, 2, seed=7)
    draws = [to_numpy(first(X, training=True)) for _ in range(2)]
    for draw in draws:
        np.testing.assert_array_equal(draw, to_numpy(second(X, training=True)))
    assert (draws[0] != draws[1]).any()
    assert (draws[0] != to_numpy(layer_of(0.2, 2, seed=8)(X, training=True))).any()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_where_all_is_dropped_the_gradient_is_zero(dtype) -> None:
    layer = layer_of(0.99, 2, gamma_scale=100.0, dtype=dtype)
    (gradient,), _ = gradients(lambda x: layer(x, training=True), [np.ones((2, 4, 4, 1), "float32")])
    np.testing.assert_array_equal(gradient, np.zeros((2, 4, 4, 1)))


def test_a_dropped_value_that_overflowed_is_zero() -> None:
    y = to_numpy(layer_of(0.3, 2, seed=5)(np.full((8, 6, 6, 1), np.inf, "float32"), training=True))
    assert set(np.unique(y)) == {0.0, np.inf}


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("block", [3, 7])
def test_unknown_sizes_in_a_compiled_step(block, data_format) -> None:
    def step(height: int | None, width: int | None) -> list[float]:
        last = data_format == "channels_last"
        inputs = keras.Input((height, width, 3) if last else (3, height, width))
        start = inputs if last else keras.layers.Permute((2, 3, 1))(inputs)
        # A weight to train, which leaves the pictures as they are.
        same = keras.layers.Dense(3, use_bias=False, kernel_initializer="identity")(start)
        same = same if last else keras.layers.Permute((3, 1, 2))(same)
        model = keras.Model(inputs, DropBlock2D(0.03, block, data_format=data_format, seed=3)(same))
        model.compile(keras.optimizers.SGD(0.0), loss=mean, metrics=[zeros])
        x = np.ones((16, 5, 9, 3) if last else (16, 3, 5, 9), "float32")
        return [float(value) for value in model.train_on_batch(x, np.zeros_like(x))]

    def mean(target, outputs):
        return ops.mean(outputs) + 0 * ops.mean(target)

    def zeros(target, outputs):
        return ops.mean(ops.cast(outputs == target, "float32"))

    known, unknown = step(5, 9), step(None, None)
    assert known == pytest.approx(unknown, rel=1e-6)
    assert known[0] == pytest.approx(1.0, abs=1e-4)  # by a sum of equal numbers, which round alike
    assert 0 < known[1] < 0.5


@pytest.mark.any_backend
def test_arguments_come_back() -> None:
    layer = DropBlock2D(0.3, 5, gamma_scale=0.25, data_format="channels_first", seed=3)
    copy = DropBlock2D.from_config(layer.get_config())
    found = (copy.rate, copy.block_size, copy.gamma_scale, copy.data_format, copy.seed)
    assert found == (0.3, 5, 0.25, "channels_first", 3)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DropBlock2D(1.0, name="d"), "`rate` must be a number in [0, 1), but received 1.0 (float)."),
        (
            lambda: DropBlock2D(0.1, 0, name="d"),
            "`block_size` must be a whole number of at least 1, but received 0 (int).",
        ),
        (
            lambda: DropBlock2D(0.1, gamma_scale=-1, name="d"),
            "`gamma_scale` must be a number above 0, but received -1 (int).",
        ),
        (
            lambda: DropBlock2D(0.1, name="d").call(np.zeros((2, 3, 4))),
            "`inputs` must be a tensor of rank 4, but received (2, 3, 4) (tuple). The shape is shown.",
        ),
    ],
)
def test_arguments_are_checked(make, message) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(f"DropBlock2D 'd': {message}") + "$"):
        make()
