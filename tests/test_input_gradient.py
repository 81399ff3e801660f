"""The gradient with respect to an input, on each backend."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_residual._backend import input_gradient

X = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")


def test_it_agrees_with_finite_differences():
    weights = np.random.default_rng(1).normal(size=X.shape).astype("float32")

    def function(x):
        return ops.sum(ops.multiply(weights, ops.square(ops.tanh(x))))

    found = ops.convert_to_numpy(input_gradient(function, X))

    step = 1e-2
    expected = np.zeros_like(X)
    for index in np.ndindex(*X.shape):
        moved = np.zeros_like(X)
        moved[index] = step
        expected[index] = (float(function(X + moved)) - float(function(X - moved))) / (2 * step)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_it_reaches_through_a_batch_norm_in_training_and_leaves_its_averages():
    net = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dense(2)])
    before = [ops.convert_to_numpy(weight) for weight in net.weights]

    gradient = ops.convert_to_numpy(input_gradient(lambda x: ops.sum(net(x, training=True) ** 2), X))

    assert gradient.shape == X.shape
    assert np.abs(gradient).max() > 1e-3
    # A batch norm in training takes the mean out, so moving all rows alike changes nothing.
    np.testing.assert_allclose(gradient.sum(axis=0), 0, atol=1e-4)
    for weight, value in zip(net.weights, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), value)
