"""Properties of `Residual` over drawn shapes, ranks, axes and rates."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from contract import to_numpy
from keras_residual import Residual

CONVOLUTIONS = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}


@st.composite
def maps(draw: Any) -> dict[str, Any]:
    """Draws a map (or a vector, of rank 0) and a convolution on it."""
    rank = draw(st.integers(0, 3))
    return {
        "rank": rank,
        "size": draw(st.lists(st.integers(2, 9), min_size=rank, max_size=rank)),
        "channels": draw(st.integers(1, 5)),
        "filters": draw(st.integers(1, 5)),
        "strides": draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank)),
        "data_format": draw(st.sampled_from(["channels_last", "channels_first"])) if rank else "channels_last",
        "known": draw(st.booleans()),
    }


@given(maps(), st.sampled_from(["auto", "projection", "avg_pool"]))
def test_every_strided_branch_finds_its_shortcut(drawn: dict[str, Any], shortcut: str) -> None:
    rank, channels = drawn["rank"], drawn["channels"]
    if rank:
        branch = CONVOLUTIONS[rank](
            drawn["filters"], 3, strides=tuple(drawn["strides"]), padding="same", data_format=drawn["data_format"]
        )
    else:
        branch = layers.Dense(drawn["filters"])
    size = tuple(drawn["size"]) if drawn["known"] else (None,) * rank
    shape = (None, *size, channels) if drawn["data_format"] == "channels_last" else (None, channels, *size)
    layer = Residual(branch, shortcut=shortcut)
    # Both paths must be there and agree: the build would raise otherwise.
    assert layer.compute_output_shape(shape) == branch.compute_output_shape(shape)
    real = tuple(d if d is not None else s for d, s in zip(shape, _filled(drawn, channels), strict=True))
    assert layer.merge_layer.compute_output_shape(
        [
            layer.shortcut_layer.compute_output_shape(real) if layer.shortcut_layer else real,
            branch.compute_output_shape(real),
        ]
    ) == branch.compute_output_shape(real)


def _filled(drawn: dict[str, Any], channels: int) -> tuple[int, ...]:
    size = tuple(drawn["size"])
    return (2, *size, channels) if drawn["data_format"] == "channels_last" else (2, channels, *size)


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.integers(1, 6),
    st.sampled_from(["add", "orthogonal"]),
    st.floats(0, 0.9),
)
def test_a_zero_branch_is_the_identity(shape: list[int], channels: int, merge: str, rate: float) -> None:
    x = np.random.default_rng(0).normal(size=(*shape, channels)).astype("float32")
    layer = Residual(layers.Dense(channels, kernel_initializer="zeros"), merge=merge, drop_path_rate=rate)
    np.testing.assert_allclose(to_numpy(layer(x, training=True)), x, atol=1e-6)


@given(
    st.floats(-2, 2),
    st.floats(-2, 2),
    st.sampled_from(["pre", "post", "out", "peri", ["pre", "post"]]),
    st.sampled_from(["batch_norm", "layer_norm", "rms_norm", "group_norm"]),
    st.floats(0, 0.99),
    st.sampled_from([None, "relu", "gelu"]),
)
def test_configuration_survives(a: float, b: float, position: Any, norm: str, rate: float, activation: Any) -> None:
    layer = Residual(
        layers.Dense(4),
        branch_scale=a,
        skip_scale=b,
        norm=norm,
        norm_position=position,
        drop_path_rate=rate,
        activation=activation,
    )
    config = layer.get_config()
    copy = Residual.from_config(config)
    assert copy.get_config() == config
    layer.build((None, 6))
    copy.build((None, 6))
    assert copy.get_config() == layer.get_config()
    assert [w.shape for w in copy.weights] == [w.shape for w in layer.weights]
