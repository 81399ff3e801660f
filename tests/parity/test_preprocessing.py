"""Preprocessing against timm's evaluation transforms."""

from __future__ import annotations

import numpy as np
import PIL
import pytest
from PIL import Image

from keras_residual.models.facts import _pretrained, pretrained_tags
from keras_residual.models.preprocessing import Preprocessing, preprocessing
from parity.timm_peer import timm

pytestmark = pytest.mark.any_backend

NAMES = [f"{name}.{tag}" for name in _pretrained() for tag in pretrained_tags(name)]
# Pillow before 13 resizes the edges of pictures that are more than twice as high as wide in the other order.
SIZES = [
    (375, 500),
    (333, 250),
    (97, 211),
    (40, 31),
    *([(211, 97)] if int(PIL.__version__.split(".")[0]) >= 13 else []),
]


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def transformed(pixels: np.ndarray, **config) -> np.ndarray:
    """What timm makes of a picture, channels last."""
    made = timm.data.create_transform(**config)(Image.fromarray(pixels))
    return made.numpy().transpose(1, 2, 0)


def assert_same(layer: Preprocessing, config: dict, size: tuple[int, int]) -> None:
    """Raises unless both make the same of a picture: a tenth of a level of its 256 is far above float32's rounding."""
    pixels = picture(*size)
    difference = (layer.prepare(pixels) - transformed(pixels, **config)) * np.array(config["std"]) * 255
    assert np.abs(difference).max() < 0.1


@pytest.mark.parametrize("test", [False, True])
def test_every_set_of_weights_gets_what_timm_gives_it(test):
    tried = set()
    for name in NAMES:
        layer = preprocessing(name, test=test)
        cfg = timm.models.get_pretrained_cfg(name).to_dict()
        config = timm.data.resolve_data_config(pretrained_cfg=cfg, use_test_size=test)
        assert config == {
            "input_size": (3, *layer.size),
            "interpolation": layer.interpolation,
            "mean": layer.mean,
            "std": layer.std,
            "crop_pct": layer.crop_pct,
            "crop_mode": layer.crop_mode,
        }, name
        if repr(config) not in tried:
            assert_same(layer, config, SIZES[len(tried) % len(SIZES)])
        tried.add(repr(config))
    assert len(tried) > 15


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(64, 64), (50, 70), (70, 50)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_other_sizes_and_crops(mode, size, interpolation):
    config = {
        "input_size": (3, *size),
        "interpolation": interpolation,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "crop_pct": 0.9,
        "crop_mode": mode,
    }
    layer = Preprocessing(size, crop_pct=0.9, interpolation=interpolation, crop_mode=mode)
    for shape in SIZES if mode == "center" else SIZES[:1]:
        assert_same(layer, config, shape)
