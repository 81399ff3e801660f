"""The weights of a model one by one: their paths, their names in checkpoints of other libraries, and both layouts.

A map of names is a list of rules; the first that fits a layer's path gives the layer's name in the checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import keras
import numpy as np

from keras_residual.stacks.stack import ResidualStack

Rules = Sequence[tuple[str, str]]

# `{s}` is a stage and `{b}` a block, counted from 0 by the other libraries.
_STEM: Rules = (
    (r"stem_conv", "conv1"),
    (r"stem_norm", "bn1"),
    (r"stem_conv1", "conv1.0"),
    (r"stem_norm1", "conv1.1"),
    (r"stem_conv2", "conv1.3"),
    (r"stem_norm2", "conv1.4"),
    (r"stem_conv3", "conv1.6"),
    (r"stem_norm3", "bn1"),
    (r"stem_pool_conv", "maxpool.0"),
    (r"stem_pool_norm", "maxpool.1"),
)
_V1_BLOCK: Rules = (
    (r"{block}/se/reduce", "layer{s}.{b}.se.fc1"),
    (r"{block}/se/expand", "layer{s}.{b}.se.fc2"),
    (r"{block}/se/conv", "layer{s}.{b}.se.conv"),
    # Split attention.
    (r"{block}/conv2/conv", "layer{s}.{b}.conv2.conv"),
    (r"{block}/conv2/norm(0|1)", r"layer{s}.{b}.conv2.bn\3"),
    (r"{block}/conv2/reduce", "layer{s}.{b}.conv2.fc1"),
    (r"{block}/conv2/expand", "layer{s}.{b}.conv2.fc2"),
)
_PLAIN_BLOCK: Rules = (
    (r"{block}/conv(\d)", r"layer{s}.{b}.conv\3"),
    (r"{block}/norm(\d)", r"layer{s}.{b}.bn\3"),
)
_HEAD: Rules = ((r"head", "fc"),)


def _shortcut(first: int) -> Rules:
    return (
        (r"{block}/shortcut/projection", f"layer{{s}}.{{b}}.downsample.{first}"),
        (r"{block}/shortcut/norm", f"layer{{s}}.{{b}}.downsample.{first + 1}"),
    )


_RES2NET: Rules = (
    (r"{block}/conv2/conv(\d+)", r"layer{s}.{b}.convs.\3"),
    (r"{block}/conv2/norm(\d+)", r"layer{s}.{b}.bns.\3"),
)
_SK: Rules = (
    (r"{block}/conv(\d)/path(\d)_conv", r"layer{s}.{b}.conv\3.paths.\4.conv"),
    (r"{block}/conv(\d)/path(\d)_norm", r"layer{s}.{b}.conv\3.paths.\4.bn"),
    (r"{block}/conv(\d)/reduce", r"layer{s}.{b}.conv\3.attn.fc_reduce"),
    (r"{block}/conv(\d)/reduce_norm", r"layer{s}.{b}.conv\3.attn.bn"),
    (r"{block}/conv(\d)/select", r"layer{s}.{b}.conv\3.attn.fc_select"),
    (r"{block}/conv(\d)", r"layer{s}.{b}.conv\3.conv"),
    (r"{block}/norm(\d)", r"layer{s}.{b}.conv\3.bn"),
)
_SENET: Rules = (
    (r"stem_conv", "layer0.conv1"),
    (r"stem_norm", "layer0.bn1"),
    (r"stem_conv(\d)", r"layer0.conv\1"),
    (r"stem_norm(\d)", r"layer0.bn\1"),
    (r"{block}/se/reduce", "layer{s}.{b}.se_module.fc1"),
    (r"{block}/se/expand", "layer{s}.{b}.se_module.fc2"),
    *_PLAIN_BLOCK,
    *_shortcut(0),
    (r"head", "last_linear"),
)
_V2: Rules = (
    (r"stem_conv", "stem.conv"),
    (r"stem_conv(\d)", r"stem.conv\1"),
    (r"stem_norm(\d)", r"stem.norm\1"),
    (r"{block}/(conv|norm)(\d)", r"stages.{s0}.blocks.{b}.\3\4"),
    (r"{block}/shortcut/projection", "stages.{s0}.blocks.{b}.downsample.conv"),
    (r"head_norm", "norm"),
    (r"head", "head.fc"),
)

NAME_MAPS: MappingProxyType[str, Rules] = MappingProxyType(
    {
        "timm": (*_STEM, *_V1_BLOCK, *_PLAIN_BLOCK, *_shortcut(0), *_HEAD),
        # If the shortcut averages first, the pooling is its layer 0.
        "timm_avg_pool": (*_STEM, *_V1_BLOCK, *_PLAIN_BLOCK, *_shortcut(1), *_HEAD),
        "timm_res2net": (*_STEM, *_RES2NET, *_PLAIN_BLOCK, *_shortcut(0), *_HEAD),
        "timm_res2net_avg_pool": (*_STEM, *_RES2NET, *_PLAIN_BLOCK, *_shortcut(1), *_HEAD),
        "timm_sknet": (*_STEM, *_SK, *_shortcut(0), *_HEAD),
        "timm_sknet_avg_pool": (*_STEM, *_SK, *_shortcut(1), *_HEAD),
        "timm_senet": _SENET,
        "timm_resnetv2": _V2,
        # github.com/akamaster/pytorch_resnet_cifar10
        "cifar": (*_STEM, *_PLAIN_BLOCK, (r"head", "linear")),
    }
)
"""Each map by its name. torchvision's checkpoints have timm's names."""

LEAVES: MappingProxyType[str, str] = MappingProxyType(
    {
        "kernel": "weight",
        "bias": "bias",
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
        "v": "v",
        "tau": "tau",
    }
)
"""PyTorch's name for each variable of a layer."""

POINTWISE = frozenset({"fc1", "fc2", "head.fc"})
"""Layers that are dense here and 1×1 convolutions there, by the end of their names."""


@dataclass(frozen=True, slots=True)
class NameMap:
    """One of `NAME_MAPS`, ready to be applied.

    Args:
        name: Its name.
        rules: Patterns of our paths, compiled, and what they become.
    """

    name: str
    rules: tuple[tuple[re.Pattern[str], str], ...]

    def __call__(self, path: str) -> str | None:
        """Returns the checkpoint's name of the weight at a path, or None where no rule fits."""
        layer, _, leaf = path.rpartition("/")
        if leaf not in LEAVES:
            return None
        for pattern, becomes in self.rules:
            match = pattern.fullmatch(layer)
            if match is None:
                continue
            if "{b}" in becomes:
                stage, block = int(match[1]), int(match[2])
                becomes = becomes.format(s=stage, s0=stage - 1, b=block - 1)
            return f"{match.expand(becomes)}.{LEAVES[leaf]}"
        return None


def name_map(name: str) -> NameMap:
    """Returns the map of a name."""
    block = r"stage(\d+)_block(\d+)"
    rules = ((re.compile(ours.replace("{block}", block)), theirs) for ours, theirs in NAME_MAPS[name])
    return NameMap(name, tuple(rules))


# --- Paths ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """One weight of a model, or a block's slice of a stacked one.

    Args:
        path: Its path, such as `"stage2_block3/conv1/kernel"`. Blocks count from 1; those of a stack continue from the
            block before it.
        variable: The variable.
        index: The block's slice of the variable; None if it has the variable to itself.
    """

    path: str
    variable: keras.Variable
    index: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        shape = tuple(self.variable.shape)
        return shape if self.index is None else shape[1:]

    def read(self) -> np.ndarray:
        """Returns the weight as it is now."""
        value = np.asarray(keras.ops.convert_to_numpy(self.variable.value))
        return value if self.index is None else value[self.index]


def slots(model: keras.Model) -> list[Slot]:
    """Returns every weight of a model, without random states.

    Args:
        model: A model whose layers have distinct names.
    """
    found: list[Slot] = []
    for layer in model.layers:
        if isinstance(layer, ResidualStack):
            # A stage consists of its first block, `stage1_block1`, and a stack of the others, `stage1_blocks`.
            stem, first = (layer.name[:-1], 2) if layer.name.endswith("_blocks") else (f"{layer.name}_block", 1)
            for number, weights in enumerate(layer.block_weights(), start=first):
                for path, (variable, index) in weights.items():
                    found.append(Slot(f"{stem}{number}/{path.removeprefix('block/')}", variable, index))
        else:
            found += [Slot(weight.path, weight) for weight in layer.weights]
    return found


def assign(values: Iterable[tuple[Slot, np.ndarray]]) -> None:
    """Sets weights; the slices of one stacked variable at once."""
    stacked: dict[int, tuple[keras.Variable, np.ndarray]] = {}
    for slot, value in values:
        if slot.index is None:
            slot.variable.assign(value)
            continue
        if id(slot.variable) not in stacked:
            now = np.array(keras.ops.convert_to_numpy(slot.variable.value))
            stacked[id(slot.variable)] = (slot.variable, now)
        stacked[id(slot.variable)][1][slot.index] = value
    for variable, value in stacked.values():
        variable.assign(value)


# --- Layouts ----------------------------------------------------------------------------------------------------------


def to_ours(slot: Slot, array: np.ndarray) -> np.ndarray:
    """Returns an array in our layout: kernels `(filters, inputs, *window)` become `(*window, inputs, filters)`.

    A 1×1 convolution becomes a matrix if our layer is dense.
    """
    if not slot.path.endswith("/kernel") or array.ndim < 2:
        return array
    kernel = array.transpose(*range(2, array.ndim), 1, 0)
    window = kernel.shape[:-2]
    if len(slot.shape) == 2 and set(window) == {1}:
        kernel = kernel.reshape(kernel.shape[-2:])
    return kernel


def to_theirs(slot: Slot, name: str) -> np.ndarray:
    """Returns our weight in the layout of PyTorch's layer of that name."""
    array = slot.read()
    if not slot.path.endswith("/kernel"):
        return array
    kernel = array.transpose(-1, -2, *range(array.ndim - 2))
    layer = name.removesuffix(".weight")
    if kernel.ndim == 2 and any(layer == end or layer.endswith(f".{end}") for end in POINTWISE):
        kernel = kernel[:, :, None, None]
    return np.ascontiguousarray(kernel)
