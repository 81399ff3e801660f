"""ResNet v2 with batch norm, group norm, EvoNorm and filter response norm, and Big Transfer's networks."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from keras_residual.models.resnet_v2 import ResNetV2Config

_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_D: dict[str, Any] = {"stem": "deep", "shortcut": "avg_pool"}
_T: dict[str, Any] = {"stem": "deep_tiered", "shortcut": "avg_pool"}


def _net(depth: int, **changes: Any) -> ResNetV2Config:
    basic: dict[str, Any] = {"block": "basic", "filters": (64, 128, 256, 512), "project": "where_needed"}
    return ResNetV2Config(depths=_DEPTHS[depth], **{**(basic if depth < 50 else {}), **changes})


def _bit(depth: int, width: int) -> ResNetV2Config:
    return _net(
        depth,
        filters=tuple(width * filters for filters in (256, 512, 1024, 2048)),
        stem_filters=64 * width,
        stem_pool="max_zero",
        norm="group_norm",
        convolution="standardized",
    )


NAMES: MappingProxyType[str, ResNetV2Config] = MappingProxyType(
    {
        **{f"resnetv2_{depth}": _net(depth) for depth in _DEPTHS},
        **{f"resnetv2_{depth}d": _net(depth, **_D) for depth in _DEPTHS},
        "resnetv2_50t": _net(50, **_T),
        "resnetv2_50d_gn": _net(50, **_D, norm="group_norm"),
        "resnetv2_50d_evos": _net(50, **_D, norm="evonorm_s0"),
        "resnetv2_50d_frn": _net(50, **_D, norm="filter_response_norm"),
        **{f"resnetv2_{d}x{w}_bit": _bit(d, w) for d, w in ((50, 1), (50, 3), (101, 1), (101, 3), (152, 2), (152, 4))},
    }
)
"""timm's names of its module `resnetv2`."""
