"""Depth rules against the papers' numbers, and against what they are for: a gradient that arrives."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from backend_helpers import gradients
from keras_residual import Residual, depth_rules


@pytest.mark.any_backend
@pytest.mark.parametrize(("depth", "alpha", "beta"), [(12, 2.213, 0.319), (100, 3.761, 0.188), (1000, 6.687, 0.1057)])
def test_deepnorm_numbers(depth: int, alpha: float, beta: float) -> None:
    scales = depth_rules.deepnorm(depth)
    assert scales.skip_scale == pytest.approx(alpha, abs=1e-3)
    assert scales.init_gain == pytest.approx(beta, abs=1e-3)


@pytest.mark.any_backend
def test_keel_multiplies_the_skip_by_the_number_of_connections() -> None:
    assert depth_rules.keel(64) == depth_rules.DepthScales(skip_scale=64.0, init_gain=1.0)


@pytest.mark.any_backend
@pytest.mark.parametrize("rule", [depth_rules.deepnorm, depth_rules.keel])
def test_depth_must_be_a_positive_whole_number(rule: Any) -> None:
    message = f"{rule.__name__}: `depth` must be a whole number of at least 1, but received 0 (int)."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        rule(0)


def gradient_gain(depth: int, **kwargs: Any) -> float:
    """Returns how much larger the gradient is at the input of a stack than at its output; branches of unit gain."""
    gain = kwargs.pop("init_gain", 1.0)
    width = 32

    def dense(factor: float, activation: str | None) -> keras.Layer:
        init = keras.initializers.RandomNormal(stddev=gain * (factor / width) ** 0.5)
        return keras.layers.Dense(width, activation=activation, kernel_initializer=init)

    blocks = [Residual([dense(2.0, "relu"), dense(1.0, None)], **kwargs) for _ in range(depth)]

    # Random signs, for a norm swallows the part of a gradient that is equal on all features.
    x, signs = np.random.default_rng(0).normal(size=(2, 8, width)).astype("float32")

    def stack(x: Any) -> Any:
        for block in blocks:
            x = block(x)
        return ops.multiply(x, signs)

    arrived = gradients(stack, [x])[0][0]
    sent = gradients(lambda v: ops.multiply(v, signs), [x])[0][0]
    return float(np.linalg.norm(arrived) / np.linalg.norm(sent))


def test_the_gradient_arrives_by_deepnorm_and_keel_and_explodes_without_a_norm() -> None:
    depth = 30
    deepnorm, keel = depth_rules.deepnorm(depth), depth_rules.keel(depth)
    plain = gradient_gain(depth)
    by_deepnorm = gradient_gain(
        depth, norm="layer_norm", norm_position="post", skip_scale=deepnorm.skip_scale, init_gain=deepnorm.init_gain
    )
    by_keel = gradient_gain(depth, norm="layer_norm", norm_position=("pre", "post"), skip_scale=keel.skip_scale)
    assert plain > 1e3
    assert 0.5 < by_deepnorm < 2
    assert 0.5 < by_keel < 2
