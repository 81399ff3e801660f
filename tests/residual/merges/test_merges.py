"""The elementary merges, and what all merges share."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest

from contract import assert_close, assert_layer_contract, to_numpy
from keras_residual.residual.merges import (
    MERGES,
    AddMerge,
    ConcatMerge,
    MagnitudePreservingMerge,
    MeanMerge,
    WeightedMerge,
)
from keras_residual.residual.merges.base import Merge

VARIANTS = {
    **MERGES,
    "weighted softmax": lambda: WeightedMerge(softmax=True),
    "lerp per channel": lambda: MERGES["lerp"](per_channel=True),
}


def pair(shape=(3, 5, 4), seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype("float32") for _ in range(2)]


@pytest.mark.every
@pytest.mark.parametrize("name", VARIANTS)
def test_contract(name):
    assert_layer_contract(VARIANTS[name], [(2, 3, 4), (2, 3, 4)])


def test_concat_contract_with_unequal_channels():
    assert_layer_contract(ConcatMerge, [(2, 3, 4), (2, 3, 6)], output_shape=(2, 3, 10))


@pytest.mark.parametrize("name", MERGES)
def test_channels_first_is_channels_last_transposed(name):
    last = MERGES[name]()
    first = MERGES[name](axis=1)
    skip, branch = pair((2, 5, 6, 4))
    expected = to_numpy(last([skip, branch]))
    moved = [np.moveaxis(x, -1, 1) for x in (skip, branch)]
    first.build([x.shape for x in moved])
    first.set_weights(last.get_weights())
    assert_close(first(moved), np.moveaxis(expected, -1, 1))


@pytest.mark.parametrize("name", MERGES)
def test_sublayers_follow_the_dtype_of_the_merge(name):
    merge = MERGES[name](dtype="mixed_float16")
    merge.build([(None, 4), (None, 4)])
    assert {inner.dtype_policy.name for inner in merge._flatten_layers()} == {"mixed_float16"}


@pytest.mark.any_backend
@pytest.mark.parametrize("name", [name for name, cls in MERGES.items() if cls.needs_equal_shapes])
@pytest.mark.parametrize(
    ("skip", "branch"), [((None, 1), (None, 64)), ((None, 64), (None, 1)), ((None, 3, 4), (None, 4)), ((2, 4), (1, 4))]
)
def test_unequal_shapes_are_refused_and_never_broadcast(name, skip, branch):
    merge = MERGES[name](name="joint")
    message = (
        f"{type(merge).__name__} 'joint': skip has shape {skip} and branch has shape {branch}, which cannot be merged. "
        'Give both the same shape, for example with shortcut="projection" on the Residual.'
    )
    for method in (merge.build, merge.compute_output_shape):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            method([skip, branch])


def test_a_built_merge_does_not_broadcast_a_later_batch():
    merge = AddMerge()
    merge(pair((3, 4)))
    with pytest.raises(ValueError, match=re.escape("skip has shape (1, 4) and branch has shape (3, 4)")):
        merge([np.zeros((1, 4), "float32"), np.zeros((3, 4), "float32")])


@pytest.mark.any_backend
def test_concat_refuses_other_dimensions_that_differ():
    message = (
        "ConcatMerge 'joint': skip has shape (None, 3, 4) and branch has shape (None, 2, 4), which cannot be merged. "
        "Give both the same shape, except along the channel axis."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ConcatMerge(name="joint").build([(None, 3, 4), (None, 2, 4)])


@pytest.mark.any_backend
def test_unknown_dimensions_are_taken_from_the_other_input():
    assert AddMerge().compute_output_shape([(None, None, 4), (None, 5, 4)]) == (None, 5, 4)
    assert ConcatMerge().compute_output_shape([(None, None, 4), (None, 5, None)]) == (None, 5, None)


@pytest.mark.any_backend
@pytest.mark.parametrize("shapes", [(None, 4), [(None, 4)], [(None, 4)] * 3])
def test_anything_but_two_inputs_is_refused(shapes):
    with pytest.raises(ValueError, match=re.escape("`inputs` must be a list of two tensors, [skip, branch], but")):
        AddMerge().build(shapes)


@pytest.mark.any_backend
def test_weights_over_channels_need_their_number():
    message = "HighwayMerge 'joint': `inputs` must be tensors with a known number of channels, but received"
    with pytest.raises(ValueError, match=re.escape(message)):
        MERGES["highway"](name="joint").build([(None, None), (None, None)])


@pytest.mark.any_backend
def test_axis_is_checked():
    with pytest.raises(
        ValueError, match=r"`axis` must be an integer other than 0, the batch axis, but received 0 \(int\)"
    ):
        AddMerge(axis=0)
    with pytest.raises(TypeError, match=r"`axis` must be an integer other than 0, .* received 1\.5 \(float\)"):
        AddMerge(axis=1.5)
    with pytest.raises(
        ValueError, match="`axis` must be an axis behind the batch axis of a tensor of rank 2, but received 2"
    ):
        MERGES["gru"](axis=2).build([(None, 4), (None, 4)])
    with pytest.raises(ValueError, match="rank 2, but received -2"):
        ConcatMerge(axis=-2).build([(None, 4), (None, 4)])


@pytest.mark.any_backend
def test_a_merge_without_a_formula_is_abstract():
    class Nothing(Merge):
        pass

    with pytest.raises(NotImplementedError, match="Nothing must define"):
        Nothing().merge(1, 2)


def test_masks_are_combined():
    ops = keras.ops
    a, b = ops.convert_to_tensor([[True, True, False]]), ops.convert_to_tensor([[True, False, False]])
    merge = AddMerge()
    assert to_numpy(merge.compute_mask(None, [a, b])).tolist() == [[True, False, False]]
    assert to_numpy(merge.compute_mask(None, [None, a])).tolist() == [[True, True, False]]
    assert to_numpy(merge.compute_mask(None, [a, None])).tolist() == [[True, True, False]]
    assert merge.compute_mask(None, [None, None]) is None
    assert merge.compute_mask(None, None) is None


def test_add_and_mean():
    skip, branch = pair()
    assert_close(AddMerge()([skip, branch]), skip + branch, 1e-6)
    assert_close(MeanMerge()([skip, branch]), (skip + branch) / 2, 1e-6)
    assert_close(MeanMerge()([skip, skip]), skip, 0)


def test_mean_does_not_overflow_in_float16():
    big = np.full((1, 1), 60000.0, "float16")
    assert to_numpy(MeanMerge(dtype="float16")([big, big])) == 60000


@pytest.mark.parametrize("axis", [-1, 1])
def test_concat_hands_the_skip_on_bit_for_bit(axis):
    skip, branch = pair((2, 5, 6))
    y = to_numpy(ConcatMerge(axis=axis)([skip, branch]))
    first, second = np.split(y, 2, axis=axis)
    np.testing.assert_array_equal(first, skip)
    np.testing.assert_array_equal(second, branch)


def test_weighted_starts_as_the_plain_sum_and_one_hot_picks():
    skip, branch = pair()
    merge = WeightedMerge()
    assert_close(merge([skip, branch]), skip + branch, 1e-6)
    merge.set_weights([np.array([1.0, 0.0])])
    assert_close(merge([skip, branch]), skip, 0)
    merge.set_weights([np.array([-2.0, 3.0])])
    assert_close(merge([skip, branch]), -2 * skip + 3 * branch, 1e-6)


def test_weighted_softmax_sums_to_one():
    skip, branch = pair()
    merge = WeightedMerge(softmax=True)
    assert_close(merge([skip, branch]), (skip + branch) / 2, 1e-6)
    merge.set_weights([np.log(np.array([1.0, 3.0]))])
    assert_close(merge([skip, branch]), skip / 4 + 3 * branch / 4, 1e-6)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 1.0])
def test_magnitude_preserving_keeps_the_variance(t):
    skip, branch = pair((1000, 200))
    y = to_numpy(MagnitudePreservingMerge(t=t)([skip, branch]))
    assert np.var(y) == pytest.approx(1.0, abs=0.01)
    assert_close(y, ((1 - t) * skip + t * branch) / np.hypot(1 - t, t), 1e-6)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: MagnitudePreservingMerge(t=1.5),
            ValueError,
            "`t` must be a number in [0, 1], but received 1.5 (float).",
        ),
        (lambda: MagnitudePreservingMerge(t="a"), TypeError, "`t` must be a number in [0, 1], but received 'a' (str)."),
        (lambda: WeightedMerge(softmax=1), TypeError, "`softmax` must be True or False, but received 1 (int)."),
    ],
)
def test_arguments_are_checked(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()
