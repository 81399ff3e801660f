"""Fifty combinations of `Residual`'s axes, drawn by seed, train three steps."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from keras_residual import Residual
from keras_residual.residual.merges import MERGES


def _branch(rng: np.random.Generator) -> tuple[Any, tuple[int, ...]]:
    """Returns a branch and the shape of one input, with 4 channels; half of them change the shape."""
    filters = int(rng.choice([4, 6]))
    strides = int(rng.choice([1, 2]))
    kinds: dict[str, tuple[Any, tuple[int, ...]]] = {
        "vector": ([layers.Dense(8, activation="relu"), layers.Dense(filters)], (4,)),
        "sequence": (layers.Dense(filters, activation="gelu"), (5, 4)),
        "series": (layers.Conv1D(filters, 3, strides=strides, padding="same"), (7, 4)),
        "picture": (
            [layers.Conv2D(filters, 3, strides=strides, padding="same"), layers.BatchNormalization(), layers.ReLU()],
            (6, 6, 4),
        ),
        "volume": (layers.Conv3D(filters, 3, strides=strides, padding="same"), (4, 4, 4, 4)),
    }
    return kinds[str(rng.choice(list(kinds)))]


def combination(seed: int) -> tuple[Residual, tuple[int, ...], str]:
    rng = np.random.default_rng(seed)

    def choose(values: list[Any]) -> Any:
        return values[int(rng.integers(len(values)))]

    branch, shape = _branch(rng)
    norm = choose([None, "batch_norm", "layer_norm", "rms_norm", "group_norm"])
    axes = {
        "shortcut": choose(["auto", "projection", "zero_pad", "avg_pool"]),
        "merge": choose(list(MERGES)),
        "branch_scale": choose([None, 0.3, "skip_init", "layer_scale", "fixup", "inverse_sqrt_2"]),
        "skip_scale": choose([None, 1.5, "inverse_sqrt_2"]),
        "norm": norm,
        "norm_position": choose(["pre", "post", "out", "peri", ("pre", "post")]) if norm else "pre",
        "drop_path_rate": choose([0.0, 0.2]),
        "activation": choose([None, "relu", "swish"]),
    }
    return Residual(branch, **axes), shape, str(axes)


@pytest.mark.parametrize("seed", range(50))
def test_drawn_combination_trains_three_steps(seed: int) -> None:
    layer, shape, axes = combination(seed)
    inputs = keras.Input(shape)
    outputs = layers.Dense(1)(layers.Flatten()(layer(inputs)))
    model = keras.Model(inputs, outputs)
    model.compile("adam", "mse")
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(8, *shape)).astype("float32"), rng.normal(size=(8, 1)).astype("float32")
    before = [np.array(w) for w in model.get_weights()]
    losses = [model.train_on_batch(x, y) for _ in range(3)]
    assert np.all(np.isfinite(losses)), axes
    after = model.get_weights()
    assert all(np.isfinite(w).all() for w in after), axes
    assert any(np.any(a != b) for a, b in zip(before, after, strict=True)), axes
