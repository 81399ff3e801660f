"""The layers that stand in for a 3×3 convolution, against timm's with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from contract import assert_close, to_numpy
from keras_residual.layers.composite_conv import MultiScaleConv2D
from keras_residual.layers.split_attention import SelectiveKernel2D, SplitAttention2D
from parity.timm_peer import TOLERANCE, timm, torch

# The layers' own tests compare them with formulas, in each run.


RNG = np.random.default_rng(3)
SIZES = [(8, 8), (7, 9), (6, 5)]

SPLIT = {
    "plain": {},
    "without a radix": {"radix": 1},
    "three splits": {"radix": 3},
    "in groups": {"groups": 2},
    "groups and three splits": {"groups": 2, "radix": 3},
    "strided": {"strides": 2},
    "dilated": {"dilation_rate": 2},
    "five wide": {"kernel_size": 5, "strides": 2},
    "one wide": {"kernel_size": 1, "strides": 2},
    "more channels between": {"ratio": 2.0, "divisor": 16},
}
SELECTIVE = {
    "plain": {},
    "strided": {"strides": 2},
    "dilated": {"dilation_rate": 2},
    "of the whole input": {"split_input": False, "groups": 4, "divisor": 32},
    "of the whole input, strided": {"split_input": False, "groups": 4, "strides": 2},
    "as wide as it says": {"keep_3x3": False, "strides": 2},
    "three paths": {"kernel_sizes": (3, 5, 7), "strides": 2},
    "skresnet18": {"ratio": 1 / 8, "divisor": 16},
}
SCALES = {
    "plain": {},
    "first": {"first": True},
    "first and strided": {"first": True, "strides": 2},
    "two scales": {"scale": 2},
    "eight scales, strided": {"scale": 8, "first": True, "strides": 2},
    "in groups": {"groups": 2},
    "dilated": {"dilation_rate": 2},
    "first and dilated": {"first": True, "dilation_rate": 2},
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", SPLIT)
def test_split_attention(case: str, size: tuple[int, int]) -> None:
    arguments = SPLIT[case]
    peer = timm.layers.SplitAttn(
        12,
        18,
        kernel_size=arguments.get("kernel_size", 3),
        stride=arguments.get("strides", 1),
        padding=arguments.get("dilation_rate", 1) * (arguments.get("kernel_size", 3) // 2),
        dilation=arguments.get("dilation_rate", 1),
        groups=arguments.get("groups", 1),
        radix=arguments.get("radix", 2),
        rd_ratio=arguments.get("ratio", 0.25),
        rd_divisor=arguments.get("divisor", 8),
        norm_layer=torch.nn.BatchNorm2d,
    )
    pairs = {"conv": "conv", "norm0": "bn0", "reduce": "fc1", "norm1": "bn1", "expand": "fc2"}
    assert_equal_outputs(SplitAttention2D(18, **arguments), peer, pairs, (*size, 12))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", SELECTIVE)
def test_selective_kernel(case: str, size: tuple[int, int]) -> None:
    arguments = SELECTIVE[case]
    kernel_sizes = arguments.get("kernel_sizes", (3, 5))
    peer = timm.layers.SelectiveKernel(
        12,
        20,
        kernel_size=list(kernel_sizes),
        stride=arguments.get("strides", 1),
        dilation=arguments.get("dilation_rate", 1),
        groups=arguments.get("groups", 1),
        rd_ratio=arguments.get("ratio", 1 / 16),
        rd_divisor=arguments.get("divisor", 8),
        keep_3x3=arguments.get("keep_3x3", True),
        split_input=arguments.get("split_input", True),
    )
    pairs = {"reduce": "attn.fc_reduce", "reduce_norm": "attn.bn", "select": "attn.fc_select"}
    for path in range(len(kernel_sizes)):
        pairs |= {f"path{path}_conv": f"paths.{path}.conv", f"path{path}_norm": f"paths.{path}.bn"}
    assert_equal_outputs(SelectiveKernel2D(20, **arguments), peer, pairs, (*size, 12))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", SCALES)
def test_multi_scale(case: str, size: tuple[int, int]) -> None:
    arguments = SCALES[case]
    width, scale, first = 4, arguments.get("scale", 4), arguments.get("first", False)
    # `base_width=64` makes the width `planes * cardinality`, and any shortcut makes the block a first one.
    groups = arguments.get("groups", 1)
    block = timm.models.res2net.Bottle2neck(
        4 * width,
        width // groups,
        stride=arguments.get("strides", 1),
        downsample=torch.nn.Identity() if first else None,
        cardinality=groups,
        base_width=64,
        scale=scale,
        first_dilation=arguments.get("dilation_rate", 1),
        norm_layer=torch.nn.BatchNorm2d,
    )
    assert (block.width, block.is_first) == (width, first)
    pairs = {f"conv{part}": f"convs.{part}" for part in range(scale - 1)}
    pairs |= {f"norm{part}": f"bns.{part}" for part in range(scale - 1)}
    layer = MultiScaleConv2D(width, **arguments)
    assert_equal_outputs(layer, block, pairs, (*size, scale * width), lambda x: between(block, x))


def between(block: Any, x: Any) -> Any:
    """What a Bottle2neck's third convolution is given, where the first norm and ReLU give `x`."""
    seen = []
    identity, stand_in = torch.nn.Identity(), torch.nn.Identity()
    stand_in.forward = lambda given: x
    block.conv1, block.bn1, block.conv3, block.bn3 = stand_in, identity, torch.nn.Identity(), torch.nn.Identity()
    block.conv3.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    # The shortcut is of no matter; a scalar goes with any shape.
    block.downsample = torch.nn.Identity()
    block.downsample.forward = lambda given: torch.zeros(())
    block(x)
    return seen[0]


def assert_equal_outputs(
    layer: keras.Layer,
    peer: Any,
    pairs: dict[str, str],
    shape: tuple[int, ...],
    call: Callable[[Any], Any] | None = None,
) -> None:
    """Raises where the two differ, at inference, with the same random weights and statistics.

    Args:
        layer: Ours.
        peer: A module of PyTorch.
        pairs: Name of each sub-layer with weights, and of the module that has the same.
        shape: Shape of the input, less its batch, channels last.
        call: Gives the module's output of an input; calls it by default.
    """
    # Not negative, as behind a ReLU: that of timm's block, which comes first, does nothing to it.
    x = np.abs(RNG.normal(size=(2, *shape))).astype("float32")
    layer.build((None, *shape))
    seen = {weight.path.split("/")[-2] for weight in layer.weights}
    assert seen == set(pairs), "sub-layers with weights are not those that were named"
    for ours, theirs in pairs.items():
        share(layer, ours, peer.get_submodule(theirs))
    peer.eval()
    with torch.no_grad():
        expected = (call or peer)(torch.tensor(np.moveaxis(x, -1, 1).copy())).numpy()
    y = to_numpy(layer(x))
    assert_close(y, np.moveaxis(expected, 1, -1), TOLERANCE)


def share(layer: keras.Layer, name: str, module: Any) -> None:
    """Gives a sub-layer and a module the same random weights."""
    weights = {weight.name: weight for weight in layer.weights if weight.path.split("/")[-2] == name}
    if "kernel" in weights:
        shape = tuple(module.weight.shape)
        kernel = RNG.normal(size=shape) * (2 / np.prod(shape[1:])) ** 0.5
        values = {"kernel": (kernel.transpose(2, 3, 1, 0), kernel, "weight")}
        if "bias" in weights:
            bias = RNG.normal(size=shape[:1])
            values["bias"] = (bias, bias, "bias")
        assert (module.bias is None) == ("bias" not in weights)
    else:
        names = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
        drawn = {ours: RNG.uniform(0.5, 1.5, size=tuple(module.weight.shape)) for ours in names}
        values = {ours: (drawn[ours], drawn[ours], theirs) for ours, theirs in names.items()}
    assert set(values) == set(weights)
    for ours, (value, other, theirs) in values.items():
        weights[ours].assign(value.astype("float32"))
        with torch.no_grad():
            getattr(module, theirs).copy_(torch.tensor(other))
