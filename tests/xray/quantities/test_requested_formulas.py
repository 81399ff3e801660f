"""The quantities on request, each against a slow twin on a block whose Jacobian is known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from keras import ops

from keras_residual.xray.quantities.cka import gram
from keras_residual.xray.quantities.early_exit import probe_accuracy
from keras_residual.xray.quantities.jacobian import chi, effective_depth, largest_singular_value, path_lengths
from keras_residual.xray.quantities.lesion import lesion_effects
from keras_residual.xray.quantities.shattering import curve, gradient_autocorrelation

RNG = np.random.default_rng(0)
W = RNG.normal(size=(5, 5)).astype("float32")
X = RNG.normal(size=(64, 5)).astype("float32")


def block(x):
    return x + ops.tanh(ops.matmul(x, ops.convert_to_tensor(W)))


def jacobians() -> np.ndarray:
    """Returns the Jacobian at each sample, entry by entry by central differences in float64."""
    found = np.zeros((len(X), 5, 5))
    for j in range(5):
        step = np.zeros(5)
        step[j] = 1e-5
        ends = [x + np.tanh(x @ W.astype("float64")) for x in (X + step, X - step)]
        found[:, :, j] = (ends[0] - ends[1]) / 2e-5
    return found


def test_chi_and_the_gain_of_the_branch_are_mean_squares_of_the_jacobian() -> None:
    whole, branch = chi(block, ops.convert_to_tensor(X), skip=1.0, draws=30)
    j = jacobians()
    assert whole == pytest.approx((j**2).sum() / X.size, rel=0.05)
    assert branch == pytest.approx(math.sqrt(((j - np.eye(5)) ** 2).sum() / X.size), rel=0.05)
    assert chi(block, ops.convert_to_tensor(X))[1] is None


def test_the_largest_singular_value() -> None:
    x = X[:4]
    expected = max(np.linalg.svd(j, compute_uv=False)[0] for j in jacobians()[:4])
    assert largest_singular_value(block, ops.convert_to_tensor(x)) == pytest.approx(expected, rel=0.02)


@pytest.mark.any_backend
def test_path_lengths_are_the_sums_over_all_paths() -> None:
    gains = [0.5, 2.0, 1.0, 0.1]
    weights = np.zeros(5)
    for path in itertools.product((0, 1), repeat=4):
        weights[sum(path)] += math.prod(gain for gain, taken in zip(gains, path, strict=True) if taken)
    np.testing.assert_allclose(path_lengths(gains), weights / weights.sum(), rtol=1e-12)
    assert effective_depth(gains) == pytest.approx((np.arange(5) * weights).sum() / weights.sum())
    # Of 54 branches of gain 1, 95 % of the gradient is carried by paths of length 20 to 34 (Veit et al. 2016).
    binomial = path_lengths([1.0] * 54)
    assert effective_depth([1.0] * 54) == 27
    assert sum(binomial[20:35]) > 0.95 > sum(binomial[21:34])


@pytest.mark.any_backend
def test_lesions_are_differences() -> None:
    assert lesion_effects([1.5, 1.0], 1.0) == [0.5, 0.0]


@pytest.mark.any_backend
def test_the_autocorrelation_tells_a_walk_from_noise() -> None:
    noise = RNG.normal(size=(256, 20))
    walk = np.cumsum(noise, axis=0)
    found = gradient_autocorrelation(walk)
    assert found[1] > 0.9
    assert found[1] > found[10]
    assert abs(gradient_autocorrelation(noise)[1]) < 0.1
    centred = walk - walk.mean(axis=0)
    products = [float(centred[i] @ centred[i + 5]) for i in range(251)]
    squares = [float(row @ row) for row in centred]
    assert found[5] == pytest.approx(np.mean(products) / np.mean(squares))
    assert curve(X).shape == (256, 5)
    assert gradient_autocorrelation(np.zeros((256, 2)))[1] == 0


@pytest.mark.any_backend
def test_cka_is_blind_to_rotation_and_sees_what_differs() -> None:
    def linear_cka(one, other):
        return float((gram(one) * gram(other)).sum())

    rotation = np.linalg.qr(RNG.normal(size=(5, 5)))[0]
    assert linear_cka(X, 3 * X @ rotation + 1) == pytest.approx(1)
    y = RNG.normal(size=(64, 3))
    a, b = X - X.mean(axis=0), y - y.mean(axis=0)
    slow = (np.linalg.norm(b.T @ a) ** 2) / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    assert linear_cka(X, y) == pytest.approx(slow, rel=1e-6)
    assert linear_cka(X, np.ones((64, 2))) == 0


@pytest.mark.any_backend
def test_a_probe_finds_what_is_linear() -> None:
    labels = (X[:, 0] > 0).astype(int)
    assert probe_accuracy(X, labels) > 0.85
    assert probe_accuracy(X, RNG.integers(0, 2, size=64)) < 0.8


@pytest.mark.any_backend
def test_a_probe_is_least_squares_with_a_penalty() -> None:
    labels = RNG.integers(0, 3, size=64)
    seen, unseen = np.c_[X[::2], np.ones(32)].astype("float64"), np.c_[X[1::2], np.ones(32)]
    weight = 0.3 * (seen**2).sum() / 6
    # Each penalised weight is one more equation that asks it to be 0.
    equations = np.concatenate([seen, weight**0.5 * np.eye(6)])
    right = 0
    scores = []
    for label in range(3):
        wanted = np.concatenate([(labels[::2] == label).astype("float64"), np.zeros(6)])
        scores.append(unseen @ np.linalg.lstsq(equations, wanted, rcond=None)[0])
    for sample, label in enumerate(labels[1::2]):
        right += max(range(3), key=lambda k: scores[k][sample]) == label
    assert probe_accuracy(X, labels, ridge=0.3) == right / 32


@pytest.mark.any_backend
def test_the_curve_is_an_arc_through_two_samples() -> None:
    arc = curve(X, points=5)
    for point, t in zip(arc, (-2, -1, 0, 1, 2), strict=True):
        np.testing.assert_allclose(point, [a * math.cos(t) + b * math.sin(t) for a, b in X[:2].T], rtol=1e-4, atol=1e-6)
