"""timm's networks beside ours with the same weights."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

import keras_residual as kr
from contract import to_numpy
from keras_residual.models.catalog import CATALOG, FAMILIES, family_of
from keras_residual.models.config import ResNetConfig
from keras_residual.weights.load import set_weights
from parity.timm_peer import array, timm, torch

TIMM = [name for family in list(FAMILIES)[:6] for name in FAMILIES[family]]
CLASSES = 7
FEATURES = ("stem", "stage1", "stage2", "stage3", "stage4")


def peer(name: str, **arguments: Any) -> Any:
    """Returns timm's network with random weights and statistics, none of them at its start of 0 or 1.

    The last norm of each branch is small, as training makes it: branches that all add as much as the stream has make
    nets of a hundred blocks that magnify rounding until it shows.
    """
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=CLASSES, **arguments)
    rng = np.random.default_rng(0)
    last = _last_norm(name)
    with torch.no_grad():
        for key, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.ndim == 1:
                low, high = (0.1, 0.4) if key.endswith(f"{last}.weight") else (0.7, 1.3)
                drawn = rng.uniform(low, high, value.shape)
                if not key.endswith((".weight", ".running_var", ".v")):
                    drawn = rng.normal(0, 0.2, value.shape)
                value.copy_(torch.tensor(drawn.astype("float32")))
    return model.eval()


def ours(model: Any, name: str, **arguments: Any) -> keras.Model:
    """Returns our network of the name with the weights of timm's."""
    arguments = {"input_shape": (None, None, 3), "num_classes": CLASSES, **arguments}
    made = kr.create_model(name, **arguments)
    set_weights(made, state(model), source="timm")
    return made


def state(model: Any) -> dict[str, np.ndarray]:
    """Returns the weights of timm's network by name, without the counters of its norms."""
    return {key: array(v) for key, v in model.state_dict().items() if not key.endswith("num_batches_tracked")}


def pictures(height: int, width: int, *, count: int = 2) -> np.ndarray:
    """Returns random pictures, channels last."""
    return np.random.default_rng(0).normal(0.2, 1.1, size=(count, height, width, 3)).astype("float32")


def sizes(name: str) -> list[tuple[int, int]]:
    """Returns an even and an odd size that the network takes."""
    config = CATALOG[name]
    if isinstance(config, ResNetConfig) and config.anti_aliasing == "average":
        # Its average pools and its shortcuts round odd sizes differently, in timm too.
        return [(64, 96)]
    return [(64, 48), (65, 57)]


def answer(model: Any, x: np.ndarray, *, double: bool = False) -> np.ndarray:
    """Returns timm's logits, in single or double precision."""
    dtype = torch.float64 if double else torch.float32
    with torch.no_grad():
        return array(model.to(dtype)(torch.tensor(x).to(dtype).permute(0, 3, 1, 2)))


def assert_agrees(actual: Any, single: np.ndarray, double: np.ndarray, bound: float = 1e-5) -> None:
    """Raises where our answer is off: over the bound from timm's, and over twice as far from the exact one as timm's.

    The second half is for the networks whose own rounding is larger than the bound.
    """
    scale = np.abs(double).max()
    found = to_numpy(actual)
    assert found.shape == single.shape
    off, exact, theirs = (np.abs(a - b).max() / scale for a, b in ((found, single), (found, double), (single, double)))
    told = f"off by {off:.2e}; from the answer in double precision by {exact:.2e}, and timm by {theirs:.2e}"
    assert off <= bound or exact <= max(bound, 2 * theirs), told


def _last_norm(name: str) -> str:
    family = family_of(name)
    config: Any = CATALOG[name]
    if family == "resnetv2":
        return "norm3" if config.block == "bottleneck" else "norm2"
    basic = config.blocks[-1].endswith("basic")
    return ("conv2.bn" if basic else "conv3.bn") if family == "sknet" else ("bn2" if basic else "bn3")
