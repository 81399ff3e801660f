"""What holds for the merges, scales and stochastic depth on any shape, rank and channel axis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import assert_close, to_numpy
from keras_residual.residual.merges import MERGES, MagnitudePreservingMerge
from keras_residual.residual.regularizers import DropPath, ShakeDrop
from keras_residual.residual.scales import LayerScale

EQUAL = [name for name, cls in MERGES.items() if cls.needs_equal_shapes]
SKIP_AT = {  # arguments with which a merge hands the skip on
    "highway": {"gate_bias": -200},
    "gru": {"gate_bias": 200},
    "output_gate": {"gate_bias": 200},
    "sigmoid_tanh": {"gate_bias": 200},
    "lerp": {"gate_bias": 200},
    "magnitude_preserving": {"t": 0},
}

# A handful, not any: JAX compiles each operation anew for each shape. The numbers in the arrays are drawn freely.
shapes = st.sampled_from([(1, 1), (3, 4), (2, 1, 3), (4, 3, 2), (2, 3, 1, 2), (2, 1, 2, 1, 3)])
seeds = st.integers(0, 2**32 - 1)


@st.composite
def pairs(draw):
    """Skip, branch and a channel axis, of rank 2 to 5."""
    shape = draw(shapes)
    rng = np.random.default_rng(draw(seeds))
    axis = draw(st.sampled_from([-1, *range(1, len(shape))]))
    skip, branch = (rng.normal(size=shape).astype("float32") for _ in range(2))
    return skip, branch, axis


@pytest.mark.parametrize("name", EQUAL)
@given(pairs())
def test_shape_is_kept_and_the_axis_only_moves_the_channels(name, drawn):
    skip, branch, axis = drawn
    merge = MERGES[name](axis=axis)
    y = to_numpy(merge([skip, branch]))
    assert y.shape == skip.shape == merge.compute_output_shape([skip.shape, branch.shape])
    last = MERGES[name]()
    moved = [np.moveaxis(x, axis, -1) for x in (skip, branch)]
    last.build([x.shape for x in moved])
    last.set_weights(merge.get_weights())
    assert_close(np.moveaxis(y, axis, -1), to_numpy(last(moved)))


@given(pairs(), st.integers(1, 4))
def test_concat_is_both_inputs_bit_for_bit(drawn, more):
    skip, branch, axis = drawn
    branch = np.repeat(branch, more, axis=axis)
    merge = MERGES["concat"](axis=axis)
    y = to_numpy(merge([skip, branch]))
    assert y.shape == merge.compute_output_shape([skip.shape, branch.shape])
    first, second = np.split(y, [skip.shape[axis]], axis=axis)
    np.testing.assert_array_equal(first, skip)
    np.testing.assert_array_equal(second, branch)


@pytest.mark.parametrize("name", SKIP_AT)
@given(pairs())
def test_there_is_a_setting_that_hands_the_skip_on(name, drawn):
    skip, branch, axis = drawn
    assert_close(to_numpy(MERGES[name](axis=axis, **SKIP_AT[name])([skip, branch])), skip, 1e-6)


@given(pairs())
def test_convex_merges_lie_between_skip_and_branch(drawn):
    skip, branch, axis = drawn
    for name in ("highway", "lerp", "mean"):
        y = to_numpy(MERGES[name](axis=axis)([skip, branch]))
        assert (y >= np.minimum(skip, branch) - 1e-5).all()
        assert (y <= np.maximum(skip, branch) + 1e-5).all()


@given(pairs())
def test_orthogonal_updates_are_orthogonal(drawn):
    skip, branch, axis = drawn
    y = to_numpy(MERGES["orthogonal"](axis=axis)([skip, branch]))
    inner = ((y - skip) * skip).sum(axis)
    square = (skip**2).sum(axis)
    # epsilon, 1e-6, leaves a little of the branch along a short skip
    left = (branch * skip).sum(axis) * 1e-6 / (square + 1e-6)
    scale = square + np.linalg.norm(skip, axis=axis) * np.linalg.norm(branch, axis=axis)
    assert (np.abs(inner - left) <= 1e-5 * scale).all()


@given(pairs())
def test_normalized_lerp_has_length_one(drawn):
    skip, branch, axis = drawn
    skip = skip / np.linalg.norm(skip, axis=axis, keepdims=True)
    branch = branch + 3 * np.sign(skip)  # away from the one direction, -skip, in which the step passes through 0
    y = to_numpy(MERGES["normalized_lerp"](axis=axis)([skip, branch]))
    assert_close(np.linalg.norm(y, axis=axis), np.ones(np.delete(skip.shape, axis), "float32"), 1e-4)


@given(pairs(), st.floats(0, 1))
def test_magnitude_preserving_factors_have_length_one(drawn, t):
    skip, branch, axis = drawn
    merge = MagnitudePreservingMerge(t=t, axis=axis)
    first = to_numpy(merge([np.ones_like(skip), np.zeros_like(branch)]))
    second = to_numpy(merge([np.zeros_like(skip), np.ones_like(branch)]))
    assert_close(first**2 + second**2, np.ones_like(skip), 1e-5)


@given(pairs(), st.floats(0, 0.99), st.sampled_from(["row", "batch"]), seeds.map(lambda seed: seed >> 1))
def test_drop_path_keeps_rows_whole(drawn, rate, mode, seed):
    x, _, _ = drawn
    y = to_numpy(DropPath(rate, mode=mode, seed=seed)(x, training=True))
    kept = []
    for row, original in zip(y, x, strict=True):
        if not row.any():
            kept.append(False)
        else:
            assert_close(row, original / np.float32(1 - rate), 1e-5)
            kept.append(True)
    assert rate > 0 or all(kept)
    assert mode == "row" or all(kept) or not any(kept)


@given(pairs(), st.floats(0, 1))
def test_shake_drop_factors_stay_in_their_range(drawn, rate):
    x, _, _ = drawn
    y = to_numpy(ShakeDrop(rate, alpha_range=(-0.5, 0.5))(x, training=True))
    for row, original in zip(y, x, strict=True):
        factors = row / original
        assert np.ptp(factors) < 1e-5
        assert abs(factors.mean() - 1) < 1e-5 or abs(factors.mean()) <= 0.5 + 1e-5


@given(pairs(), st.floats(-2, 2))
def test_layer_scale_of_equal_factors_is_a_product(drawn, init):
    x, _, axis = drawn
    assert_close(to_numpy(LayerScale(init=init, axis=axis)(x)), x * np.float32(init), 1e-6)
