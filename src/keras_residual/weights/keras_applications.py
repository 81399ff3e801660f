"""The weights of `keras.applications`' ResNets, as PyTorch would name them.

Its networks have the stride in the first convolution of a block, biases before norms, and another epsilon. The first
is a matter of architecture, `keras_resnet50` and its like; the statistics of the norms take up the others, exactly in
inference.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np

from keras_residual._errors import bad_checkpoint
from keras_residual.weights.name_maps import LEAVES

_EPSILON = 1.001e-5 - 1e-5
"""By how much its epsilon is larger than PyTorch's."""

_BLOCK = re.compile(r"conv(\d)_block(\d+)_(\d)_(conv|bn)")
_OTHERS = {"conv1_conv": "conv1", "conv1_bn": "bn1", "predictions": "fc"}


def read_keras_applications(path: Path) -> dict[str, np.ndarray]:
    """Returns the weights in an `.h5` file of ResNet50, ResNet101 or ResNet152, with timm's names and layouts.

    Raises:
        CheckpointError: If the file is damaged, or holds another network.
    """
    tensors: dict[str, np.ndarray] = {}
    for layer, weights in _layers(path).items():
        for leaf, value in weights.items():
            name = _name(layer)
            if name is None or leaf not in LEAVES:
                way_out = "Only ResNet50, ResNet101 and ResNet152 are read; other Keras models load with load_weights."
                raise bad_checkpoint(path, f"it holds a layer {layer!r} with {leaf!r}, which they have not", way_out)
            kernel = leaf == "kernel"
            tensors[f"{name}.{LEAVES[leaf]}"] = value.transpose(-1, -2, *range(value.ndim - 2)) if kernel else value
    return _without_biases(tensors)


def _layers(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Returns the arrays by layer and by their names in it; layers without any are left out."""
    h5py: Any = importlib.import_module("h5py")  # Keras brings it
    try:
        with h5py.File(path, "r") as file:
            group = file.get("model_weights", file)
            if "layer_names" not in group.attrs:
                what = "it holds the weights of a Keras model in Keras 3's own form (HDF5)"
                raise bad_checkpoint(path, what, "Load them with model.load_weights(path).")
            found = {}
            for layer in map(_text, group.attrs["layer_names"]):
                names = [_text(name) for name in group[layer].attrs["weight_names"]]
                leaves = (name.rpartition("/")[2].partition(":")[0] for name in names)
                found[layer] = {
                    leaf: np.asarray(group[layer][name], "float32") for leaf, name in zip(leaves, names, strict=True)
                }
            return found
    except (OSError, KeyError) as error:
        raise bad_checkpoint(path, f"the file is damaged ({error})", "Delete it and get it again.") from None


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _name(layer: str) -> str | None:
    match = _BLOCK.fullmatch(layer)
    if match is None:
        return _OTHERS.get(layer)
    stage, block, number, kind = int(match[1]) - 1, int(match[2]) - 1, match[3], match[4]
    if number == "0":
        return f"layer{stage}.{block}.downsample.{0 if kind == 'conv' else 1}"
    return f"layer{stage}.{block}.{kind}{number}"


def _without_biases(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the weights with the convolutions' biases in the means of the norms behind them."""
    found = dict(tensors)
    for name in tensors:
        layer, _, leaf = name.rpartition(".")
        if leaf != "running_mean":
            continue
        found[f"{layer}.running_var"] = found[f"{layer}.running_var"] + np.float32(_EPSILON)
        first = layer.endswith("downsample.1")
        convolution = f"{layer[:-1]}0" if first else layer.replace("bn", "conv")
        bias = found.pop(f"{convolution}.bias", None)
        if bias is not None:
            found[name] = found[name] - bias
    return found
