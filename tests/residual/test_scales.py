"""Scales of the branch: where each starts, and what each learns first."""

from __future__ import annotations

import re

import numpy as np
import pytest

from backend_helpers import gradients
from contract import assert_close, assert_layer_contract, to_numpy
from keras_residual.residual.scales import NAMED_FACTORS, SCALES, FixupScale, LayerScale, ScalarBias, Scale, SkipInit

X = np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32")


@pytest.mark.every
@pytest.mark.parametrize("make", [SkipInit, LayerScale, lambda: Scale(0.5), ScalarBias, FixupScale])
def test_contract(make):
    assert_layer_contract(make, (2, 3, 4), output_shape=(2, 3, 4))


def test_contract_of_layer_scale_with_channels_first():
    assert_layer_contract(lambda: LayerScale(axis=1), (2, 3, 5, 4), output_shape=(2, 3, 5, 4))


def test_skip_init_is_the_identity_at_first_and_learns_its_factor_at_once():
    branch = np.random.default_rng(1).normal(size=X.shape).astype("float32")
    scale = SkipInit()
    scale.build(X.shape)
    assert_close(X + to_numpy(scale(branch)), X, 0)
    (by_branch,), (by_factor,) = gradients(scale, [branch], scale.trainable_variables)
    assert np.abs(by_factor) > 0.1
    np.testing.assert_array_equal(by_branch, np.zeros_like(branch))


def test_skip_init_starts_where_it_is_told_to():
    assert_close(SkipInit(init=0.25)(X), X / 4, 1e-6)


@pytest.mark.parametrize("axis", [-1, 1, 2, -2])
def test_layer_scale_has_one_factor_a_channel(axis):
    layer = LayerScale(axis=axis)
    layer.build(X.shape)
    factors = np.arange(1, X.shape[axis] + 1, dtype="float32")
    layer.set_weights([factors])
    assert_close(layer(X), np.moveaxis(np.moveaxis(X, axis, -1) * factors, -1, axis), 1e-6)


def test_layer_scale_with_equal_factors_is_skip_init():
    assert_close(LayerScale(init=0.3)(X), SkipInit(init=0.3)(X), 1e-6)


@pytest.mark.any_backend
def test_layer_scale_starts_at_1e_5():
    layer = LayerScale()
    layer.build((None, 3))
    np.testing.assert_allclose(layer.get_weights()[0], np.full(3, 1e-5), rtol=1e-6)


def test_scale_and_shifts():
    assert_close(Scale(-2)(X), -2 * X, 1e-6)
    assert_close(ScalarBias()(X), X, 0)
    assert_close(ScalarBias(init=0.5)(X), X + 0.5, 1e-6)
    fixup = FixupScale()
    assert_close(fixup(X), X, 0)
    fixup.set_weights([np.array(3.0), np.array(-1.0)])
    assert_close(fixup(X), 3 * X - 1, 1e-6)


@pytest.mark.any_backend
def test_constant_factor_is_not_a_weight():
    layer = Scale(2.0)
    layer.build((None, 3))
    assert layer.weights == []


@pytest.mark.any_backend
def test_names():
    assert {name: cls.__name__ for name, cls in SCALES.items()} == {
        "skip_init": "SkipInit",
        "rezero": "SkipInit",
        "layer_scale": "LayerScale",
        "fixup": "FixupScale",
    }
    assert NAMED_FACTORS["inverse_sqrt_2"] ** 2 == pytest.approx(0.5)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: SkipInit(name="s", init="a"),
            TypeError,
            "SkipInit 's': `init` must be a finite number, but received 'a' (str).",
        ),
        (
            lambda: LayerScale(name="s", init=np.nan),
            ValueError,
            "LayerScale 's': `init` must be a finite number, but received nan (float).",
        ),
        (
            lambda: ScalarBias(name="s", init=True),
            TypeError,
            "ScalarBias 's': `init` must be a finite number, but received True (bool).",
        ),
        (
            lambda: Scale(np.inf, name="s"),
            ValueError,
            "Scale 's': `value` must be a finite number, but received inf (float).",
        ),
        (
            lambda: LayerScale(name="s").build((None, None)),
            ValueError,
            "LayerScale 's': `inputs` must be a tensor with a known number of channels, "
            "but received (None, None) (tuple).",
        ),
        (
            lambda: LayerScale(name="s", axis=0),
            ValueError,
            "LayerScale 's': `axis` must be an integer other than 0, the batch axis, but received 0 (int).",
        ),
    ],
)
def test_arguments_are_checked(make, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        make()
