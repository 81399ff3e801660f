"""Arguments that are not the default reach the configuration, and come back from it."""

from __future__ import annotations

import keras
import pytest

from keras_residual.residual.merges import (
    AddMerge,
    DeltaMerge,
    GRNMerge,
    GRUMerge,
    LerpMerge,
    MagnitudePreservingMerge,
    NormalizedLerpMerge,
    OrthogonalMerge,
    WeightedMerge,
)
from keras_residual.residual.regularizers import DropPath, ShakeDrop, ShakeShake
from keras_residual.residual.scales import LayerScale, ScalarBias, Scale, SkipInit


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (AddMerge, {"axis": 1}),
        (WeightedMerge, {"softmax": True}),
        (MagnitudePreservingMerge, {"t": 0.6}),
        (GRUMerge, {"gate_bias": 3.5}),
        (LerpMerge, {"per_channel": True, "gate_bias": -1.0}),
        (GRNMerge, {"epsilon": 0.25}),
        (OrthogonalMerge, {"epsilon": 0.25}),
        (DeltaMerge, {"beta": 0.5, "epsilon": 0.25}),
        (NormalizedLerpMerge, {"step": 0.5, "epsilon": 0.25}),
        (SkipInit, {"init": 0.5}),
        (LayerScale, {"init": 0.5, "axis": 1}),
        (Scale, {"value": 0.5}),
        (ScalarBias, {"init": 0.5}),
        (DropPath, {"rate": 0.5, "mode": "batch", "seed": 3}),
        (ShakeDrop, {"rate": 0.5, "alpha_range": (0.0, 0.5), "beta_range": (0.5, 2.0), "mode": "batch", "seed": 3}),
        (ShakeShake, {"branches": [Scale(1.0), Scale(2.0)], "mode": "batch", "seed": 3}),
    ],
)
def test_arguments_come_back(cls, arguments):
    layer = cls(**arguments, name="layer", dtype="mixed_float16", trainable=False)
    copy = cls.from_config(layer.get_config())
    for name, value in arguments.items():
        if name != "branches":
            assert getattr(copy, name) == value
    assert (copy.name, copy.dtype_policy.name, copy.trainable) == ("layer", "mixed_float16", False)


@pytest.mark.any_backend
def test_branches_come_back_with_their_own_arguments():
    shake = ShakeShake([Scale(1.0), [Scale(2.0), keras.layers.Dense(3)]])
    copy = ShakeShake.from_config(shake.get_config())
    assert [layer.value for layer in (*copy.first, copy.second[0])] == [1.0, 2.0]
    assert copy.second[1].units == 3
    assert copy.second[1] is not shake.second[1]


@pytest.mark.any_backend
def test_kernel_initializer_comes_back():
    merge = GRUMerge(kernel_initializer=keras.initializers.Orthogonal(gain=0.5, seed=4))
    copy = GRUMerge.from_config(merge.get_config())
    assert copy.kernel_initializer.get_config() == {"gain": 0.5, "seed": 4}
