"""timm as the peer of our own layers: imported where it is installed, with random weights, called with NumPy arrays.

A module that imports this one is skipped where timm is missing.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from contract import assert_close, to_numpy
from import_timm import import_timm

TOLERANCE = 1e-5

torch = pytest.importorskip("torch", reason="timm needs PyTorch")
try:
    timm = import_timm()
except ImportError as error:
    pytest.skip(f"timm is not installed: {error}", allow_module_level=True)


def randomized(module: Any, seed: int = 0) -> Any:
    """Returns the module with each weight drawn anew: those of a start, 0 and 1, would hide a weight that is missed."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.tensor(rng.normal(0.3, 0.7, size=tuple(weight.shape)).astype("float32")))
    return module.eval()


def array(weight: Any) -> np.ndarray:
    """Returns a weight of the peer as a NumPy array."""
    return weight.detach().cpu().numpy()


def pictures(*shape: int, seed: int = 1) -> np.ndarray:
    """Returns random pictures of shape `(batch, channels, height, width)`, of a mean that is not 0."""
    return np.random.default_rng(seed).normal(0.4, 1.3, size=shape).astype("float32")


def assert_agrees(layer: keras.Layer, module: Any, x: np.ndarray, *, training: bool = False) -> None:
    """Raises where a layer and its peer differ on pictures of shape `(batch, channels, height, width)`."""
    last = getattr(layer, "data_format", "channels_last") == "channels_last"
    with torch.no_grad():
        expected = array(module.train(training)(torch.tensor(x)))
    actual = to_numpy(layer(np.moveaxis(x, 1, -1) if last else x, training=training))
    assert_close(np.moveaxis(actual, -1, 1) if last else actual, expected, TOLERANCE)
