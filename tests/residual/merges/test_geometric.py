"""Orthogonal, delta and normalised merges: the geometry each promises."""

from __future__ import annotations

import re

import numpy as np
import pytest
from keras import ops

from backend_helpers import gradients
from contract import assert_close, to_numpy
from keras_residual.residual.merges import DeltaMerge, NormalizedLerpMerge, OrthogonalMerge


def pair(shape=(3, 5, 4), seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype("float32") for _ in range(2)]


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_orthogonal_adds_only_what_is_orthogonal():
    skip, branch = pair()
    y = to_numpy(OrthogonalMerge()([skip, branch]))
    update = y - skip
    assert np.abs((update * skip).sum(-1)).max() < 1e-5
    assert_close((y**2).sum(-1), (skip**2).sum(-1) + (update**2).sum(-1))
    # nothing but the part along the skip is taken away
    along = ((branch * unit(skip)).sum(-1, keepdims=True)) * unit(skip)
    assert_close(update, branch - along)


def test_orthogonal_leaves_the_branch_where_the_skip_is_zero():
    _, branch = pair()
    assert_close(OrthogonalMerge()([np.zeros_like(branch), branch]), branch, 1e-6)


def test_orthogonal_inner_products_do_not_overflow_in_float16():
    skip = np.full((1, 256), 100.0, "float16")  # <x, x> = 2.56e6, above float16's 65504
    y = to_numpy(OrthogonalMerge(dtype="float16")([skip, skip]))
    np.testing.assert_allclose(y, skip, rtol=1e-3)


def delta_operator(beta_bias, k, channels=4):
    """The matrix by which DeltaMerge transports the skip when `beta` is constant and `v` is 0."""
    merge = DeltaMerge(kernel_initializer="zeros")
    merge.build([(None, channels), (None, channels)])
    kernel, _, value_kernel, value_bias = merge.get_weights()
    merge.set_weights([kernel, np.array([beta_bias]), value_kernel, value_bias])
    return to_numpy(merge([np.eye(channels, dtype="float32"), np.tile(k, (channels, 1))])).T


@pytest.mark.parametrize(("bias", "beta"), [(-100.0, 0.0), (0.0, 1.0), (100.0, 2.0), (-1.0, 2 / (1 + np.e))])
def test_delta_has_the_eigenvalues_of_the_delta_operator(bias, beta):
    k = np.array([1.0, -2.0, 0.5, 3.0], "float32")
    operator = delta_operator(bias, k)
    assert_close(
        np.sort(np.linalg.eigvalsh((operator + operator.T) / 2)), np.sort([1, 1, 1, 1 - beta]).astype("float32")
    )
    if beta == 0:
        assert_close(operator, np.eye(4, dtype="float32"))
    if beta == 1:
        assert_close(operator @ operator, operator)
        assert np.abs(operator @ k).max() < 1e-5
    if beta == 2:
        assert_close(operator @ operator.T, np.eye(4, dtype="float32"))
        assert_close(operator @ k, -k)


def test_delta_equals_its_formula_in_numpy():
    skip, branch = pair()
    merge = DeltaMerge()
    y = to_numpy(merge([skip, branch]))
    beta_kernel, beta_bias, value_kernel, value_bias = merge.get_weights()
    beta = 2 / (1 + np.exp(-(skip @ beta_kernel + beta_bias)))
    k = unit(branch)
    value = skip @ value_kernel + value_bias
    assert_close(y, skip + beta * (value - (k * skip).sum(-1, keepdims=True)) * k)


@pytest.mark.parametrize("beta", [0.1, 1.0, 1.9])
def test_delta_starts_at_the_beta_it_was_given(beta):
    k = np.array([[0.0, 2.0]], "float32")
    y = to_numpy(DeltaMerge(beta=beta, kernel_initializer="zeros")([np.array([[3.0, 5.0]], "float32"), k]))
    assert_close(y, np.array([[3.0, 5.0 * (1 - beta)]], "float32"), 1e-5)


@pytest.mark.parametrize("make", [DeltaMerge, OrthogonalMerge, NormalizedLerpMerge])
def test_zero_inputs_give_finite_values_and_gradients(make):
    zeros = np.zeros((2, 4), "float32")
    merge = make()
    assert np.isfinite(to_numpy(merge([zeros, zeros]))).all()
    found, _ = gradients(lambda x, f: merge([x, f]), [zeros, zeros])
    assert all(np.isfinite(gradient).all() for gradient in found)


def test_delta_with_a_zero_branch_is_the_skip():
    skip, _ = pair()
    assert_close(DeltaMerge()([skip, np.zeros_like(skip)]), skip, 0)


def test_normalized_lerp_stays_on_the_sphere():
    skip, branch = pair()
    y = to_numpy(NormalizedLerpMerge()([unit(skip), branch]))
    assert_close(np.linalg.norm(y, axis=-1), np.ones((3, 5), "float32"))
    assert_close(y, unit(unit(skip) + 0.05 * (unit(branch) - unit(skip))))


def test_normalized_lerp_of_step_zero_is_the_identity_on_the_sphere():
    skip, branch = pair()
    assert_close(NormalizedLerpMerge(step=0)([unit(skip), branch]), unit(skip))


def test_normalized_lerp_has_one_step_a_channel():
    skip, branch = pair()
    merge = NormalizedLerpMerge()
    merge.build([skip.shape, branch.shape])
    step = np.array([0.0, 0.1, 0.5, 1.0], "float32")
    merge.set_weights([step])
    assert_close(merge([unit(skip), branch]), unit(unit(skip) + step * (unit(branch) - unit(skip))))


def test_norms_are_computed_in_float32_under_float16():
    big = np.full((1, 256), 100.0, "float16")
    for merge in (DeltaMerge(dtype="mixed_float16"), NormalizedLerpMerge(dtype="mixed_float16")):
        y = to_numpy(merge([ops.convert_to_tensor(big), ops.convert_to_tensor(big)]))
        assert np.isfinite(y).all()
        assert np.any(y)
    assert_close(y.astype("float32"), np.full((1, 256), 1 / 16, "float32"), 1e-3)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: DeltaMerge(name="d", beta=2),
            "DeltaMerge 'd': `beta` must be a number in (0, 2), but received 2 (int).",
        ),
        (
            lambda: DeltaMerge(name="d", epsilon=0),
            "DeltaMerge 'd': `epsilon` must be a number above 0, but received 0 (int).",
        ),
        (
            lambda: OrthogonalMerge(name="o", epsilon=-1),
            "OrthogonalMerge 'o': `epsilon` must be a number above 0, but received -1 (int).",
        ),
        (
            lambda: NormalizedLerpMerge(name="n", epsilon=0),
            "NormalizedLerpMerge 'n': `epsilon` must be a number above 0, but received 0 (int).",
        ),
        (
            lambda: NormalizedLerpMerge(name="n", step=np.nan),
            "NormalizedLerpMerge 'n': `step` must be a finite number, but received nan (float).",
        ),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()
