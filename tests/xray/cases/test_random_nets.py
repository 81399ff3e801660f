"""Nets that nobody chose: whatever they are built of and given, there is a report that does not contradict itself."""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from keras_residual import Residual, ResidualStack
from keras_residual._json import finite
from keras_residual.xray import xray
from keras_residual.xray.health import healths, verdict
from keras_residual.xray.quantities import QUANTITIES

ACTIVATIONS = ("relu", "tanh", "sigmoid", "gelu", "selu", "softplus", "linear")
NORMS = ("layer_norm", "batch_norm", "rms_norm", None)


def part(rng: np.random.Generator, width: int) -> list[Any]:
    """Returns some layers that keep the width."""
    activation = str(rng.choice(ACTIVATIONS))
    kinds = (
        lambda: [layers.Dense(width, activation)],
        lambda: [layers.Dense(width), layers.BatchNormalization(), layers.Activation(activation)],
        lambda: [layers.Dense(width, activation), layers.Dropout(0.2)],
        lambda: [
            Residual(
                [layers.Dense(2 * width, activation), layers.Dense(width)],
                norm=NORMS[rng.integers(4)],
                skip_scale=[None, 0.5, 1.0][rng.integers(3)],
                merge=["add", "concat", "highway"][rng.integers(3)] if rng.random() < 0.3 else "add",
            )
        ],
        lambda: [
            ResidualStack(Residual([layers.Dense(width, activation)], norm="layer_norm"), int(rng.integers(2, 5)))
        ],
        lambda: [keras.Sequential([layers.Dense(width, activation), layers.Dense(width)])],
    )
    return kinds[rng.integers(len(kinds))]()


def random_net(rng: np.random.Generator) -> tuple[keras.Model, Any, Any, Any]:
    """Returns a compiled model, a batch of some size and scale, targets, and sample weights or None."""
    width, rank = int(rng.integers(2, 12)), int(rng.integers(2, 4))
    shape = (5, width)[3 - rank :]
    x = inputs = keras.Input(shape)
    for _ in range(rng.integers(1, 7)):
        chain = part(rng, x.shape[-1])
        y = x
        for layer in chain:
            y = layer(y)
        x = layers.Add()([x, y]) if rng.random() < 0.2 and y.shape == x.shape else y
    x = layers.GlobalAveragePooling1D()(x) if rank == 3 else x
    model = keras.Model(inputs, layers.Dense(3, activation=["linear", "softmax"][rng.integers(2)])(x))
    sparse = bool(rng.integers(2))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=bool(rng.integers(2))) if sparse else "mse"
    optimizer = [keras.optimizers.SGD(1.0), keras.optimizers.Adam(1e-3)][rng.integers(2)]
    model.compile(optimizer, loss)
    batch = int(rng.choice([1, 2, 17, 64]))
    data = (10.0 ** rng.integers(-6, 6) * rng.normal(size=(batch, *shape))).astype("float32")
    if rng.random() < 0.2:
        data[0, ..., 0] = rng.choice([np.nan, np.inf, 0.0])
    y = rng.integers(-1, 5, size=batch) if sparse else rng.normal(size=(batch, 3)).astype("float32")
    return model, data, y, rng.random(batch).astype("float32") if rng.random() < 0.3 else None


@pytest.mark.filterwarnings("ignore:.*received `from_logits=True`:UserWarning")
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_random_net_has_a_report_that_does_not_contradict_itself(seed: int) -> None:
    keras.utils.set_random_seed(seed)
    model, x, y, sample_weight = random_net(np.random.default_rng(seed))
    report = xray(model, x, y, sample_weight=sample_weight)
    json.dumps(finite(report.to_dict()), allow_nan=False)
    advice, text, html = report.advice, str(report), report._repr_html_()
    health = healths(report.blocks, report.model, advice)
    level, words = verdict(advice, health)
    assert words in html
    assert ("Nothing to advise" in text) == (not advice)
    assert (level == "healthy") == (not advice and all(one.level == "healthy" for one in health))
    for quantity in QUANTITIES:
        odd = quantity.odd(report.blocks, report.model)
        assert not any(is_odd and one.level == "healthy" for is_odd, one in zip(odd, health, strict=True)), quantity.key
    assert len({entry.block for entry in advice} - {""}) <= len(advice)
    with np.errstate(all="ignore"):
        broken = not np.isfinite(x).all()
    assert broken <= any(entry.rule == "given_not_finite" for entry in advice)
