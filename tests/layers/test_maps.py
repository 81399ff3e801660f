"""Maps: which data format holds, which shapes are taken, and means over the positions that count."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest

from contract import assert_close
from keras_residual.layers.maps import MapLayer, as_data_format, check_rank

X = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("float32")


def test_mean_is_over_all_positions() -> None:
    assert_close(MapLayer(data_format="channels_last").mean(X), X.mean(axis=(1, 2)))
    assert_close(MapLayer(data_format="channels_first").mean(X), X.mean(axis=(2, 3)))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_mean_is_over_the_positions_that_count(data_format: str) -> None:
    mask = np.random.default_rng(1).random((2, 3, 4)) < 0.5
    mask[1] = False  # no position at all counts: the mean is 0, not nan
    x = X if data_format == "channels_last" else np.moveaxis(X, -1, 1)
    expected = np.stack([X[0][mask[0]].mean(axis=0), np.zeros(5)]).astype("float32")
    assert_close(MapLayer(data_format=data_format).mean(x, mask), expected)


def test_masked_mean_of_half_precision_does_not_overflow() -> None:
    x = keras.ops.cast(np.full((1, 100, 1), 2000.0), "float16")
    y = MapLayer(data_format="channels_last").mean(x, np.arange(100)[None] < 90)
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    assert_close(y, np.full((1, 1), 2000, "float16"), 0)


@pytest.mark.any_backend
def test_no_data_format_is_that_of_keras() -> None:
    for name in ("channels_first", "channels_last"):
        keras.config.set_image_data_format(name)
        assert as_data_format("owner", None) == name
        assert MapLayer().data_format == name


@pytest.mark.any_backend
def test_unknown_data_format() -> None:
    message = (
        "MapLayer 'm': unknown name for `data_format`: 'channel_last'. Did you mean 'channels_last'? "
        "Known: channels_last, channels_first."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        MapLayer(data_format="channel_last", name="m")


@pytest.mark.any_backend
@pytest.mark.parametrize(("ranks", "known"), [((4,), "4"), ((3, 4, 5), "3, 4 or 5")])
def test_rank_is_checked(ranks: tuple[int, ...], known: str) -> None:
    message = f"owner: `inputs` must be a tensor of rank {known}, but received (None, 3) (tuple). The shape is shown."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_rank("owner", (None, 3), ranks)


@pytest.mark.any_backend
def test_channels_must_be_known() -> None:
    message = (
        "MapLayer 'm': `inputs` must be a tensor with a known number of channels, but received (None, None, 4) (tuple)."
    )
    layer = MapLayer(data_format="channels_first", name="m")
    assert layer.channels_of((None, 4, None)) == 4
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        layer.channels_of((None, None, 4))
