"""Directions that are as long as the weights filter by filter, and the curvature of the loss."""

from __future__ import annotations

import itertools
from typing import Any
from unittest import mock

import keras
import numpy as np
import pytest
from keras import ops

from keras_residual.xray import xray
from keras_residual.xray.quantities.directions import largest_eigenvalue
from keras_residual.xray.quantities.loss_slice import (
    curvature,
    filter_normalised,
    slice_points,
    surface_points,
)
from keras_residual.xray.quantities.sharpness import sharpness

RNG = np.random.default_rng(0)


@pytest.mark.any_backend
@pytest.mark.parametrize("filters", [(-1,), (-2,), (0, -1), (-2, -1)])
def test_each_filter_of_a_direction_is_as_long_as_that_of_the_weights(filters: tuple[int, ...]) -> None:
    weights, drawn = (RNG.normal(size=(3, 2, 4, 5)).astype("float32") for _ in range(2))
    weights[0, :, :, 2] = 0
    expected = np.zeros(weights.shape)
    axes = [axis % 4 for axis in filters]
    for place in itertools.product(*(range(weights.shape[axis]) for axis in axes)):
        where: list = [slice(None)] * 4
        for axis, index in zip(axes, place, strict=True):
            where[axis] = index
        part = drawn[tuple(where)].astype("float64")
        expected[tuple(where)] = part * np.linalg.norm(weights[tuple(where)]) / np.linalg.norm(part)
    np.testing.assert_allclose(filter_normalised(drawn, weights, filters), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.any_backend
def test_what_has_no_filters_stays() -> None:
    assert not filter_normalised(np.ones(3), np.ones(3), None).any()
    assert not filter_normalised(np.zeros((2, 3)), np.ones((2, 3)), (-1,)).any()


@pytest.mark.any_backend
def test_points_and_curvature() -> None:
    at = slice_points()
    assert (at.shape, at[25, 0], at[-1, 0]) == ((51, 1), 0, 1)
    plane = surface_points(5)
    assert plane.shape == (25, 2)
    assert plane[7].tolist() == [-0.5, 0]  # row 1, column 2
    assert not plane[12].any()
    losses = [3 * float(a) ** 2 + float(a) + 1 for a in at[:, 0]]
    assert curvature([float(a) for a in at[:, 0]], losses) == pytest.approx(6, rel=1e-6)


def test_sharpness_is_the_largest_eigenvalue_of_the_hessian() -> None:
    x = RNG.normal(size=(16, 3)).astype("float32")
    y = RNG.normal(size=16).astype("float32")
    first, second = (RNG.normal(size=shape).astype("float32") for shape in ((3, 2), (2,)))

    def by_hand(flat: np.ndarray) -> float:
        hidden = np.tanh(x.astype("float64") @ flat[:6].reshape(3, 2))
        return float(((hidden @ flat[6:] - y) ** 2).mean())

    def loss(weights):
        hidden = ops.tanh(ops.matmul(ops.convert_to_tensor(x), weights[0]))
        return ops.mean(ops.square(ops.sum(hidden * weights[1], axis=1) - ops.convert_to_tensor(y)))

    start, step = np.concatenate([first.ravel(), second]).astype("float64"), 1e-4
    moves = step * np.eye(8)
    hessian = np.array(
        [
            [
                sum(s * t * by_hand(start + s * a + t * b) for s in (1, -1) for t in (1, -1)) / (4 * step**2)
                for b in moves
            ]
            for a in moves
        ]
    )
    values = np.linalg.eigvalsh(hessian)
    expected = values[np.abs(values).argmax()]
    weights = [ops.convert_to_tensor(first), ops.convert_to_tensor(second)]
    assert largest_eigenvalue(*sharpness(loss, weights)) == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("size", [1, 6, 40, 200])
@pytest.mark.parametrize("kind", ["squares", "saddle", "negative", "twins"])
def test_sharpness_of_drawn_hessians(size: int, kind: str) -> None:
    rng = np.random.default_rng(size)
    matrix = rng.normal(size=(size, size))
    axes = np.linalg.qr(matrix)[0]
    twins = np.r_[1.0, 0.99, np.linspace(-0.5, 0.5, size)][:size]
    hessian = {
        "squares": matrix.T @ matrix,
        "saddle": matrix + matrix.T,
        "negative": -matrix.T @ matrix,
        "twins": (axes * twins) @ axes.T,
    }[kind].astype("float32")
    values = np.linalg.eigvalsh(hessian.astype("float64"))
    expected = values[np.abs(values).argmax()]

    def loss(weights: Any) -> Any:
        return 0.5 * ops.sum(weights[0] * ops.matmul(ops.convert_to_tensor(hessian), weights[0]))

    found = largest_eigenvalue(*sharpness(loss, [ops.convert_to_tensor(rng.normal(size=(size, 1)), "float32")]))
    assert found == pytest.approx(expected, rel=0.02) or abs(found) == pytest.approx(abs(values).max(), rel=0.02)


def test_sharpness_on_a_batch_of_a_common_seed() -> None:
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, use_bias=False)])
    report = xray(model, x, x[:, :1], "mse", quantities="sharpness", verbose=False)
    assert report.model["sharpness"] == pytest.approx(np.linalg.eigvalsh(2 * x.T @ x / 32).max(), rel=5e-3)


@pytest.mark.any_backend
def test_no_direction_is_that_of_a_batch() -> None:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6, use_bias=False, kernel_initializer="ones")])
    with mock.patch("numpy.random.default_rng", wraps=np.random.default_rng) as asked:
        x = np.random.default_rng(2).normal(size=(32, 6)).astype("float32")
        names = ["chi", "singular_value", "loss_surface", "sharpness"]
        xray(model, x, x, "mse", quantities=names, verbose=False)
    seeds = [call.args[0] for call in asked.call_args_list[1:]]
    assert len(seeds) >= 5
    assert all(seed[0] > 1e6 for seed in seeds)
