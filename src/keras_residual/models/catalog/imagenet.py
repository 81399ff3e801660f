"""Networks on pictures of ImageNet's size: names and the architectures behind them, by family."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from keras_residual.models.config import ResNetConfig, ResNetV2Config

DEPTHS = {
    10: (1, 1, 1, 1),
    14: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    26: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
    269: (3, 30, 48, 8),
}
"""Blocks in each stage, by the number in the name."""

BASIC = (10, 18, 34)
"""Depths that consist of basic blocks; the others consist of bottlenecks."""

# He et al., Bag of Tricks, 2018, and the variants of timm and Gluon: what the letter behind the depth stands for.
_C: dict[str, Any] = {"stem": "deep"}
_D: dict[str, Any] = {"stem": "deep", "shortcut": "avg_pool"}
_S: dict[str, Any] = {"stem": "deep", "stem_filters": 128}
_T: dict[str, Any] = {"stem": "deep_tiered", "shortcut": "avg_pool"}
_SE: dict[str, Any] = {"attention": "se"}
_ECA: dict[str, Any] = {"attention": "eca"}
_AA: dict[str, Any] = {"anti_aliasing": "average"}
_BLUR: dict[str, Any] = {"anti_aliasing": "blur"}
# Bello et al., Revisiting ResNets, 2021.
_RS: dict[str, Any] = {**_D, "stem_pool": "conv", "attention": "se", "se_ratio": 0.25}
_RES2NET: dict[str, Any] = {"block": "res2net"}
_RESNEST: dict[str, Any] = {**_D, "block": "resnest"}
_SK_BASIC: dict[str, Any] = {
    "block": "sk_basic",
    "sk_ratio": 1 / 8,
    "sk_divisor": 16,
    "zero_init_last": False,
}
_SK: dict[str, Any] = {"block": "sk_bottleneck", "zero_init_last": False}
# The networks of the squeeze-and-excitation paper as Caffe had them.
_CAFFE_SE: dict[str, Any] = {
    "stem_pool": "max_ceil",
    "strides_first": True,
    "attention": "se",
    "se_divisor": 1,
    "zero_init_last": False,
}


def _net(depth: int, *variants: dict[str, Any], **changes: Any) -> ResNetConfig:
    arguments: dict[str, Any] = {"block": "basic" if depth in BASIC else "bottleneck", "depths": DEPTHS.get(depth)}
    for variant in variants:
        arguments |= variant
    return ResNetConfig(**{**arguments, **changes})


def _x(cardinality: int, base_width: int) -> dict[str, Any]:
    return {"cardinality": cardinality, "base_width": base_width}


def _v2(depth: int, **changes: Any) -> ResNetV2Config:
    basic: dict[str, Any] = {"block": "basic", "filters": (64, 128, 256, 512), "project": "where_needed"}
    return ResNetV2Config(depths=DEPTHS[depth], **{**(basic if depth in BASIC else {}), **changes})


def _bit(depth: int, width: int) -> ResNetV2Config:
    return _v2(
        depth,
        filters=tuple(width * filters for filters in (256, 512, 1024, 2048)),
        stem_filters=64 * width,
        stem_pool="max_zero",
        norm="group_norm",
        convolution="standardized",
    )


# Aflalo et al., Knapsack Pruning with Inner Distillation, 2020: filters of each convolution of each block.
_PRUNED_50 = (
    ((47, 18, 19), (52, 22, 19), (64, 35, 19)),
    ((85, 37, 171), (107, 80, 171), (120, 85, 171), (125, 87, 171)),
    ((198, 126, 818), (255, 232, 818), (256, 233, 818), (253, 235, 818), (256, 225, 818), (256, 239, 818)),
    ((492, 237, 2022), (512, 500, 2022), (512, 490, 2022)),
)
_PRUNED_101_STAGE_3 = (
    *((101, 25), (239, 160), (234, 156), (250, 176), (253, 191), (251, 175), (230, 128), (244, 154), (244, 159)),
    *((238, 97), (244, 149), (253, 181), (245, 119), (255, 216), (256, 201), (253, 149), (254, 141), (256, 190)),
    *((256, 217), (255, 156), (256, 155), (256, 232), (256, 214)),
)
_PRUNED_101 = (
    ((45, 25, 26), (53, 20, 26), (60, 27, 26)),
    ((81, 24, 142), (93, 49, 142), (102, 54, 142), (122, 78, 142)),
    tuple((first, second, 278) for first, second in _PRUNED_101_STAGE_3),
    ((499, 289, 2042), (512, 512, 2042), (512, 502, 2042)),
)

RESNET: MappingProxyType[str, ResNetConfig] = MappingProxyType(
    {
        **{f"resnet{depth}": _net(depth) for depth in (18, 26, 34, 50, 101, 152, 200)},
        **{f"resnet{depth}t": _net(depth, _T) for depth in (10, 14, 26, 50)},
        **{f"resnet{depth}c": _net(depth, _C) for depth in (50, 101, 152)},
        **{f"resnet{depth}d": _net(depth, _D) for depth in (18, 26, 34, 50, 101, 152, 200)},
        **{f"resnet{depth}s": _net(depth, _S) for depth in (50, 101, 152)},
        "resnet50_gn": _net(50, norm="group_norm"),
        "resnetaa34d": _net(34, _D, _AA),
        "resnetaa50": _net(50, _AA),
        "resnetaa50d": _net(50, _D, _AA),
        "resnetaa101d": _net(101, _D, _AA),
        "resnetblur18": _net(18, _BLUR),
        "resnetblur50": _net(50, _BLUR),
        "resnetblur50d": _net(50, _D, _BLUR),
        "resnetblur101d": _net(101, _D, _BLUR),
        **{f"resnetrs{depth}": _net(depth, _RS) for depth in (50, 101, 152, 200)},
        "resnetrs270": _net(270, _RS, depths=(4, 29, 53, 4)),
        "resnetrs350": _net(350, _RS, depths=(4, 36, 72, 4)),
        "resnetrs420": _net(420, _RS, depths=(4, 44, 87, 4)),
        "resnext50_32x4d": _net(50, _x(32, 4)),
        "resnext50d_32x4d": _net(50, _D, _x(32, 4)),
        **{f"resnext101_{c}x{w}d": _net(101, _x(c, w)) for c, w in ((32, 4), (32, 8), (32, 16), (32, 32), (64, 4))},
        "wide_resnet50_2": _net(50, base_width=128),
        "wide_resnet101_2": _net(101, base_width=128),
        "senet154": _net(152, _SE, _S, _x(64, 4), reduce_first=2, shortcut_kernel_size=3),
        **{f"seresnet{depth}": _net(depth, _SE) for depth in (18, 34, 50, 101, 152)},
        "seresnet50t": _net(50, _SE, _T),
        **{f"seresnet{depth}d": _net(depth, _SE, _D) for depth in (152, 200, 269)},
        "seresnetaa50d": _net(50, _SE, _D, _AA),
        "seresnext26d_32x4d": _net(26, _SE, _D, _x(32, 4)),
        "seresnext26t_32x4d": _net(26, _SE, _T, _x(32, 4)),
        "seresnext50_32x4d": _net(50, _SE, _x(32, 4)),
        **{f"seresnext101_{c}x{w}d": _net(101, _SE, _x(c, w)) for c, w in ((32, 4), (32, 8), (64, 4))},
        "seresnext101d_32x8d": _net(101, _SE, _D, _x(32, 8)),
        "seresnextaa101d_32x8d": _net(101, _SE, _D, _AA, _x(32, 8)),
        "seresnextaa201d_32x8d": _net(201, _SE, _D, _AA, _x(32, 8), depths=(3, 24, 36, 4), stem_filters=128),
        "ecaresnet26t": _net(26, _ECA, _T),
        "ecaresnet50t": _net(50, _ECA, _T),
        **{f"ecaresnet{depth}d": _net(depth, _ECA, _D) for depth in (50, 101, 200, 269)},
        "ecaresnet50d_pruned": _net(50, _ECA, _D, inner_widths=_PRUNED_50),
        "ecaresnet101d_pruned": _net(101, _ECA, _D, inner_widths=_PRUNED_101),
        "ecaresnetlight": _net(51, _ECA, depths=(1, 1, 11, 3), shortcut="avg_pool"),
        "ecaresnext26t_32x4d": _net(26, _ECA, _T, _x(32, 4)),
        "ecaresnext50t_32x4d": _net(50, _ECA, _T, _x(32, 4)),
        "test_resnet": ResNetConfig(
            block=("basic", "basic", "bottleneck", "basic"),
            depths=(1, 1, 1, 1),
            widths=(32, 48, 48, 96),
            stem="deep",
            stem_filters=32,
            shortcut="avg_pool",
        ),
    }
)
"""ResNet and its variants C, D, S and T, ResNeXt, Wide ResNet, SE- and ECA-ResNet, ResNet-RS, anti-aliased ones."""

RESNET_V2: MappingProxyType[str, ResNetV2Config] = MappingProxyType(
    {
        **{f"resnetv2_{depth}": _v2(depth) for depth in (18, 34, 50, 101, 152)},
        **{f"resnetv2_{depth}d": _v2(depth, **_D) for depth in (18, 34, 50, 101, 152)},
        "resnetv2_50t": _v2(50, **_T),
        "resnetv2_50d_gn": _v2(50, **_D, norm="group_norm"),
        "resnetv2_50d_evos": _v2(50, **_D, norm="evonorm_s0"),
        "resnetv2_50d_frn": _v2(50, **_D, norm="filter_response_norm"),
        **{f"resnetv2_{d}x{w}_bit": _bit(d, w) for d, w in ((50, 1), (50, 3), (101, 1), (101, 3), (152, 2), (152, 4))},
    }
)
"""ResNet v2 with batch norm, group norm, EvoNorm and filter response norm, and the networks of Big Transfer."""

RESNEST: MappingProxyType[str, ResNetConfig] = MappingProxyType(
    {
        **{f"resnest{depth}d": _net(depth, _RESNEST) for depth in (14, 26, 50)},
        **{f"resnest{depth}e": _net(depth, _RESNEST, stem_filters=128) for depth in (101, 200, 269)},
        "resnest50d_1s4x24d": _net(50, _RESNEST, radix=1, cardinality=4, base_width=24, pool_first=True),
        "resnest50d_4s2x40d": _net(50, _RESNEST, radix=4, cardinality=2, base_width=40, pool_first=True),
    }
)
"""Zhang et al., ResNeSt, 2020. https://arxiv.org/abs/2004.08955"""

RES2NET: MappingProxyType[str, ResNetConfig] = MappingProxyType(
    {
        "res2net50_14w_8s": _net(50, _RES2NET, base_width=14, scale=8),
        "res2net50_26w_4s": _net(50, _RES2NET, base_width=26, scale=4),
        "res2net50_26w_6s": _net(50, _RES2NET, base_width=26, scale=6),
        "res2net50_26w_8s": _net(50, _RES2NET, base_width=26, scale=8),
        "res2net50_48w_2s": _net(50, _RES2NET, base_width=48, scale=2),
        "res2net50d": _net(50, _RES2NET, _D, base_width=26, scale=4),
        "res2net101_26w_4s": _net(101, _RES2NET, base_width=26, scale=4),
        "res2net101d": _net(101, _RES2NET, _D, base_width=26, scale=4),
        "res2next50": _net(50, _RES2NET, base_width=4, cardinality=8, scale=4),
    }
)
"""Gao et al., Res2Net, 2019. https://arxiv.org/abs/1904.01169"""

SKNET: MappingProxyType[str, ResNetConfig] = MappingProxyType(
    {
        "skresnet18": _net(18, _SK_BASIC),
        "skresnet34": _net(34, _SK_BASIC),
        "skresnet50": _net(50, _SK),
        "skresnet50d": _net(50, _SK, _D),
        "skresnext50_32x4d": _net(50, _SK, cardinality=32, base_width=4, sk_split=False, sk_divisor=32),
    }
)
"""Li et al., Selective Kernel Networks, 2019. https://arxiv.org/abs/1903.06586"""

SENET: MappingProxyType[str, ResNetConfig] = MappingProxyType(
    {
        **{f"legacy_seresnet{depth}": _net(depth, _CAFFE_SE, relu_before_attention=True) for depth in (18, 34)},
        **{f"legacy_seresnet{depth}": _net(depth, _CAFFE_SE) for depth in (50, 101, 152)},
        **{
            f"legacy_seresnext{depth}_32x4d": _net(depth, _CAFFE_SE, _x(32, 4), strides_first=False)
            for depth in (26, 50, 101)
        },
        "legacy_senet154": _net(
            *(152, _CAFFE_SE, _S, _x(64, 4)), strides_first=False, reduce_first=2, shortcut_kernel_size=3
        ),
    }
)
"""Hu et al., Squeeze-and-Excitation Networks, 2017. https://arxiv.org/abs/1709.01507"""

KERAS: MappingProxyType[str, ResNetConfig] = MappingProxyType(
    {f"keras_resnet{depth}": _net(depth, strides_first=True, zero_init_last=False) for depth in (50, 101, 152)}
)
"""The networks of `keras.applications`, which stride in the first convolution of a block."""

FAMILIES: MappingProxyType[str, MappingProxyType[str, ResNetConfig] | MappingProxyType[str, ResNetV2Config]] = (
    MappingProxyType(
        {
            "resnet": RESNET,
            "resnetv2": RESNET_V2,
            "resnest": RESNEST,
            "res2net": RES2NET,
            "sknet": SKNET,
            "senet": SENET,
            "keras": KERAS,
        }
    )
)
"""The names of each family. The first six are timm's, by the modules in which timm has them."""
