"""Networks whose 3×3 convolution is another operation: ResNeSt, Res2Net and SKNet."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from keras_residual.models.resnet_config import ResNetConfig

_DEPTHS = {
    14: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    26: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    200: (3, 24, 36, 3),
    269: (3, 30, 48, 8),
}
_D: dict[str, Any] = {"stem": "deep", "shortcut": "avg_pool"}


def _net(block: str, depth: int, **changes: Any) -> ResNetConfig:
    return ResNetConfig(block=block, depths=_DEPTHS[depth], **changes)


RESNEST: MappingProxyType[str, ResNetConfig] = MappingProxyType(
    {
        **{f"resnest{depth}d": _net("resnest", depth, **_D) for depth in (14, 26, 50)},
        **{f"resnest{depth}e": _net("resnest", depth, **_D, stem_filters=128) for depth in (101, 200, 269)},
        "resnest50d_1s4x24d": _net("resnest", 50, **_D, radix=1, cardinality=4, base_width=24, pool_first=True),
        "resnest50d_4s2x40d": _net("resnest", 50, **_D, radix=4, cardinality=2, base_width=40, pool_first=True),
    }
)
"""timm's names of its module `resnest`. Zhang et al., ResNeSt, 2020. https://arxiv.org/abs/2004.08955"""

RES2NET: MappingProxyType[str, ResNetConfig] = MappingProxyType(
    {
        "res2net50_14w_8s": _net("res2net", 50, base_width=14, scale=8),
        "res2net50_26w_4s": _net("res2net", 50, base_width=26, scale=4),
        "res2net50_26w_6s": _net("res2net", 50, base_width=26, scale=6),
        "res2net50_26w_8s": _net("res2net", 50, base_width=26, scale=8),
        "res2net50_48w_2s": _net("res2net", 50, base_width=48, scale=2),
        "res2net50d": _net("res2net", 50, **_D, base_width=26, scale=4),
        "res2net101_26w_4s": _net("res2net", 101, base_width=26, scale=4),
        "res2net101d": _net("res2net", 101, **_D, base_width=26, scale=4),
        "res2next50": _net("res2net", 50, base_width=4, cardinality=8, scale=4),
    }
)
"""timm's names of its module `res2net`. Gao et al., Res2Net, 2019. https://arxiv.org/abs/1904.01169"""

_SMALL_SK: dict[str, Any] = {"sk_ratio": 1 / 8, "sk_divisor": 16, "zero_init_last": False}

SKNET: MappingProxyType[str, ResNetConfig] = MappingProxyType(
    {
        "skresnet18": _net("sk_basic", 18, **_SMALL_SK),
        "skresnet34": _net("sk_basic", 34, **_SMALL_SK),
        "skresnet50": _net("sk_bottleneck", 50, zero_init_last=False),
        "skresnet50d": _net("sk_bottleneck", 50, **_D, zero_init_last=False),
        "skresnext50_32x4d": _net(
            "sk_bottleneck", 50, cardinality=32, base_width=4, sk_split=False, sk_divisor=32, zero_init_last=False
        ),
    }
)
"""timm's names of its module `sknet`. Li et al., Selective Kernel Networks, 2019. https://arxiv.org/abs/1903.06586"""
