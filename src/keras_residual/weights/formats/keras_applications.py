"""The weights of `keras.applications`' ResNets, as PyTorch would name them.

Its networks have the stride in the first convolution of a block, biases before norms, and another epsilon. The first
is a matter of architecture, `keras_resnet50` and its like; the statistics of the norms take up the others, exactly in
inference.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from keras_residual._errors import bad_checkpoint, shown
from keras_residual.weights.formats.hdf5 import Array, Hdf5Error, Hdf5Group, read_hdf5
from keras_residual.weights.formats.values import float32
from keras_residual.weights.names import LEAVES

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
            name, kernel = _name(layer), leaf == "kernel"
            if name is None or leaf not in LEAVES or (kernel and value.ndim < 2):
                way_out = "Only ResNet50, ResNet101 and ResNet152 are read; other Keras models load with load_weights."
                what = f"it holds a layer {shown(layer)} with {shown(leaf)}, which they do not have"
                raise bad_checkpoint(path, what, way_out)
            tensors[f"{name}.{LEAVES[leaf]}"] = value.transpose(-1, -2, *range(value.ndim - 2)) if kernel else value
    return _without_biases(tensors, path)


def _layers(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Returns the arrays by layer and by their names in it; layers without any are left out."""
    try:
        root = read_hdf5(path)
    except Hdf5Error as error:
        raise bad_checkpoint(path, str(error), "Save the model's weights again: model.save_weights(path).") from None
    group = root.members.get("model_weights", root)
    if not isinstance(group, Hdf5Group) or "layer_names" not in group.attributes:
        what = "it holds the weights of a Keras model in Keras 3's own form (HDF5)"
        raise bad_checkpoint(path, what, "Load them with model.load_weights(path).")
    found = {}
    for layer in _texts(group.attributes["layer_names"]):
        of_layer = group.members.get(layer)
        names = _texts(of_layer.attributes.get("weight_names", ())) if isinstance(of_layer, Hdf5Group) else []
        found[layer] = {
            name.rpartition("/")[2].partition(":")[0]: _array(path, of_layer, layer, name) for name in names
        }
    return found


def _array(path: Path, group: Any, layer: str, name: str) -> np.ndarray:
    for part in name.split("/"):
        group = group.members.get(part) if isinstance(group, Hdf5Group) else None
    if not isinstance(group, Array) or group.values.dtype.kind == "V":
        what = f"the file is damaged (it has no numbers {shown(name)} of the layer {shown(layer)})"
        raise bad_checkpoint(path, what, "Delete it and get it again.")
    return float32(group.values)


def _texts(names: Any) -> list[str]:
    return [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in np.ravel(names)]


def _name(layer: str) -> str | None:
    match = _BLOCK.fullmatch(layer)
    if match is None:
        return _OTHERS.get(layer)
    stage, block, number, kind = int(match[1]) - 1, int(match[2]) - 1, match[3], match[4]
    if number == "0":
        return f"layer{stage}.{block}.downsample.{0 if kind == 'conv' else 1}"
    return f"layer{stage}.{block}.{kind}{number}"


def _without_biases(tensors: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """Returns the weights with the convolutions' biases in the means of the norms behind them."""
    found = dict(tensors)
    for name in tensors:
        layer, _, leaf = name.rpartition(".")
        if leaf != "running_mean":
            continue
        if f"{layer}.running_var" not in tensors:
            what = f"the file is damaged (the norm {layer} has a mean and no variance)"
            raise bad_checkpoint(path, what, "Delete it and get it again.")
        found[f"{layer}.running_var"] = found[f"{layer}.running_var"] + np.float32(_EPSILON)
        first = layer.endswith("downsample.1")
        convolution = f"{layer[:-1]}0" if first else layer.replace("bn", "conv")
        bias = found.pop(f"{convolution}.bias", None)
        if bias is not None:
            if bias.shape != found[name].shape:
                what = f"the file is damaged (the bias before the norm {layer} is of another shape)"
                raise bad_checkpoint(path, what, "Delete it and get it again.")
            found[name] = found[name] - bias
    return found
