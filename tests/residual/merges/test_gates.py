"""The gated merges against formulas in NumPy, and what they do at the ends of their gates."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest

from contract import assert_close, perturb, to_numpy
from keras_residual.residual.merges import MERGES, GRNMerge, GRUMerge, HighwayMerge, LerpMerge
from keras_residual.residual.merges.gates import BiasedGateMerge

BIASED = [name for name, cls in MERGES.items() if issubclass(cls, BiasedGateMerge)]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def layer_norm(x, epsilon):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)


def pair(shape=(3, 5, 4), seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype("float32") for _ in range(2)]


def twin(name, x, f, w):
    """The merge in NumPy; `w` maps the paths of the weights, less the name of the merge, to arrays."""
    if name == "highway":
        gate = sigmoid(x @ w["transform_gate/kernel"] + w["transform_gate/bias"])
        return gate * f + (1 - gate) * x
    if name == "gru":
        r = sigmoid(f @ w["reset_branch/kernel"] + x @ w["reset_skip/kernel"])
        z = sigmoid(f @ w["update_branch/kernel"] + x @ w["update_skip/kernel"] - w["gate_bias"])
        h = np.tanh(f @ w["candidate_branch/kernel"] + (r * x) @ w["candidate_skip/kernel"])
        return (1 - z) * x + z * h
    if name == "input_gate":
        return sigmoid(x @ w["input_gate/kernel"]) * x + f
    if name == "output_gate":
        return x + sigmoid(x @ w["output_gate/kernel"] - w["gate_bias"]) * f
    if name == "sigmoid_tanh":
        return x + sigmoid(f @ w["gate/kernel"] - w["gate_bias"]) * np.tanh(f @ w["candidate/kernel"])
    if name in ("lerp", "lerp per channel"):
        m = sigmoid(np.concatenate([x, f], -1) @ w["mix/kernel"] + w["mix/bias"])
        return (1 - m) * f + m * x
    if name == "grn":
        glu = sigmoid(f @ w["gate/kernel"] + w["gate/bias"]) * (f @ w["value/kernel"] + w["value/bias"])
        return layer_norm(x + glu, 1e-5) * w["norm/gamma"] + w["norm/beta"]
    raise AssertionError(name)


@pytest.mark.parametrize("name", [*BIASED, "input_gate", "lerp per channel"])
def test_equals_its_formula_in_numpy(name):
    merge = LerpMerge(per_channel=True) if name == "lerp per channel" else MERGES[name]()
    skip, branch = pair()
    merge.build([skip.shape, branch.shape])
    perturb(merge)
    weights = {
        v.path.removeprefix(f"{merge.name}/"): np.asarray(w, "float64")
        for v, w in zip(merge.weights, merge.get_weights(), strict=True)
    }
    assert_close(to_numpy(merge([skip, branch])), twin(name, skip.astype("float64"), branch.astype("float64"), weights))


@pytest.mark.parametrize(
    ("name", "bias"),
    [("highway", -100), ("gru", 100), ("output_gate", 100), ("sigmoid_tanh", 100), ("lerp", 100)],
)
def test_a_closed_gate_hands_the_skip_on(name, bias):
    skip, branch = pair()
    assert_close(MERGES[name](gate_bias=bias)([skip, branch]), skip, 1e-6)


@pytest.mark.parametrize(("name", "bias"), [("highway", 100), ("lerp", -100)])
def test_an_open_gate_hands_the_branch_on(name, bias):
    skip, branch = pair()
    assert_close(MERGES[name](gate_bias=bias)([skip, branch]), branch, 1e-6)


def test_grn_with_a_closed_gate_is_the_norm_of_the_skip():
    skip, branch = pair()
    assert_close(GRNMerge(gate_bias=-100, epsilon=1e-3)([skip, branch]), layer_norm(skip, 1e-3))


@pytest.mark.parametrize("make", [HighwayMerge, LerpMerge, lambda: LerpMerge(per_channel=True)])
def test_convex_gates_stay_between_skip_and_branch(make):
    skip, branch = pair()
    y = to_numpy(make()([skip, branch]))
    assert (y >= np.minimum(skip, branch) - 1e-6).all()
    assert (y <= np.maximum(skip, branch) + 1e-6).all()


def test_lerp_has_one_mix_a_position_unless_per_channel():
    skip, branch = pair()
    mix = (to_numpy(LerpMerge()([skip, branch])) - branch) / (skip - branch)
    assert np.ptp(mix, axis=-1).max() < 1e-3
    mix = (to_numpy(LerpMerge(per_channel=True)([skip, branch])) - branch) / (skip - branch)
    assert np.ptp(mix, axis=-1).max() > 0.1


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("name", "start"),
    [("highway", -2), ("gru", 2), ("output_gate", 2), ("sigmoid_tanh", 2), ("lerp", 0), ("grn", 0)],
)
def test_gate_bias_starts_as_the_paper_has_it(name, start):
    merge = MERGES[name]()
    merge.build([(None, 4), (None, 4)])
    assert merge.gate_bias == start
    gate = next(v for v in merge.weights if v.path.endswith(("gate_bias", "gate/bias", "mix/bias")))
    np.testing.assert_array_equal(gate.numpy(), np.full(gate.shape, start))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "initializer", ["glorot_uniform", keras.initializers.GlorotUniform(), keras.initializers.GlorotUniform(seed=3)]
)
def test_no_two_kernels_start_alike(initializer):
    merge = GRUMerge(kernel_initializer=initializer)
    merge.build([(None, 4), (None, 4)])
    kernels = [w for w in merge.get_weights() if w.ndim == 2]
    assert len(kernels) == 6
    assert len({kernel.tobytes() for kernel in kernels}) == 6


@pytest.mark.any_backend
def test_an_integer_seed_makes_the_kernels_reproducible():
    def kernels():
        merge = GRUMerge(kernel_initializer=keras.initializers.GlorotUniform(seed=3))
        merge.build([(None, 4), (None, 4)])
        return merge.get_weights()

    for first, second in zip(kernels(), kernels(), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.any_backend
def test_a_function_is_an_initializer_too():
    merge = HighwayMerge(kernel_initializer=lambda shape, dtype: keras.ops.ones(shape, dtype))
    merge.build([(None, 4), (None, 4)])
    np.testing.assert_array_equal(merge.get_weights()[0], np.ones((4, 4)))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: GRUMerge(name="g", gate_bias=np.inf),
            ValueError,
            "GRUMerge 'g': `gate_bias` must be a finite number, but received inf (float).",
        ),
        (
            lambda: GRUMerge(name="g", gate_bias=None),
            TypeError,
            "GRUMerge 'g': `gate_bias` must be a finite number, but received None (NoneType).",
        ),
        (
            lambda: GRNMerge(name="g", epsilon=0),
            ValueError,
            "GRNMerge 'g': `epsilon` must be a number above 0, but received 0 (int).",
        ),
        (
            lambda: LerpMerge(name="g", per_channel="yes"),
            TypeError,
            "LerpMerge 'g': `per_channel` must be True or False, but received 'yes' (str).",
        ),
    ],
)
def test_arguments_are_checked(make, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        make()
