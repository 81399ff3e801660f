"""Nets that nobody chose leave Keras as files that answer as they do."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras.layers import Dense, Flatten

import keras_residual as kr
from deploy.nets import close, randomised, rows
from keras_residual.stacks.topologies import TOPOLOGIES
from properties.test_combinations import combination

pytestmark = [pytest.mark.any_backend, pytest.mark.slow]

DRAWN = sorted(set(TOPOLOGIES) - {"value_residual", "mhc"})
"""The first takes blocks of a kind of its own; blocks of the second are a hundred operations, and take a minute."""


def drawn(seed: int) -> tuple[keras.Model, str]:
    """Returns a Sequential net: a connection on its own, then a stack of connections, then a head."""
    rng = np.random.default_rng(seed)
    first, shape, axes = combination(seed)
    how = {
        "topology": str(rng.choice(DRAWN)),
        "execution": str(rng.choice(["auto", "unrolled"])),
        "depth_rule": rng.choice([None, "inverse_sqrt_depth"]),
    }
    block = kr.Residual([Dense(6, activation=str(rng.choice(["relu", "gelu", "tanh"]))), Dense(6)], norm="layer_norm")
    stack = kr.ResidualStack(block, int(rng.integers(2, 4)), **how)
    net = keras.Sequential([keras.Input(shape), first, Flatten(), Dense(6), stack, Dense(3)])
    return randomised(net), f"{axes} {how}"


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("file", ["net.pt2", "net.onnx"])
def test_a_drawn_net_answers_as_in_keras(file, seed, tmp_path):
    model, how = drawn(seed)
    kr.export(model, tmp_path / file)
    x = rows(model, 4, seed=seed)
    found = kr.load_exported(tmp_path / file).predict(x)
    try:
        close(found, model.predict(x, verbose=0))
    except AssertionError as error:
        raise AssertionError(how) from error
