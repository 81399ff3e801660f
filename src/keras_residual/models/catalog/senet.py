"""The networks of the squeeze-excite paper as Caffe had them."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from keras_residual.models.resnet_config import ResNetConfig

_DEPTHS = {
    18: (2, 2, 2, 2),
    26: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


def _net(depth: int, **changes: Any) -> ResNetConfig:
    arguments: dict[str, Any] = {
        "block": "basic" if depth in (18, 34) else "bottleneck",
        "relu_before_attention": depth in (18, 34),
        "depths": _DEPTHS[depth],
        "stem_pool": "max_ceil",
        "strides_first": True,
        "attention": "se",
        "se_divisor": 1,
        "zero_init_last": False,
    }
    return ResNetConfig(**{**arguments, **changes})


_X: dict[str, Any] = {"cardinality": 32, "base_width": 4, "strides_first": False}

NAMES: MappingProxyType[str, ResNetConfig] = MappingProxyType(
    {
        **{f"legacy_seresnet{depth}": _net(depth) for depth in (18, 34, 50, 101, 152)},
        **{f"legacy_seresnext{depth}_32x4d": _net(depth, **_X) for depth in (26, 50, 101)},
        "legacy_senet154": _net(
            152,
            **{**_X, "cardinality": 64},
            stem="deep",
            stem_filters=128,
            reduce_first=2,
            shortcut_kernel_size=3,
        ),
    }
)
"""timm's names of its module `senet`. Hu et al., Squeeze-and-Excitation Networks, 2017."""
