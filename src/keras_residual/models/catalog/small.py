"""What timm does not have: networks for small pictures, for volumes, series and tables."""

from __future__ import annotations

from types import MappingProxyType

from keras_residual.models.resnet_config import ResNetConfig
from keras_residual.models.resnet_v2 import ResNetV2Config
from keras_residual.models.series import SeriesResNetConfig
from keras_residual.models.tabular import TabularResNetConfig


def _cifar(depth: int, shortcut: str = "zero_pad") -> ResNetConfig:
    # He et al. 2015, section 4.2: 6n + 2 weighted layers, option A.
    return ResNetConfig(
        block="basic",
        depths=((depth - 2) // 6,) * 3,
        widths=(16, 32, 64),
        stem="conv3",
        stem_filters=16,
        stem_pool="none",
        shortcut=shortcut,
        zero_init_last=False,
    )


def _preact(depth: int, block: str) -> ResNetV2Config:
    # He et al. 2016, table 2: 6n + 2 with basic blocks, 9n + 2 with bottlenecks.
    layers, expansion = (6, 1) if block == "basic" else (9, 4)
    return ResNetV2Config(
        block=block,
        depths=((depth - 2) // layers,) * 3,
        filters=(16 * expansion, 32 * expansion, 64 * expansion),
        stem="conv3",
        stem_filters=16,
        stem_pool="none",
        project="where_needed",
    )


def _wide(depth: int, width: int) -> ResNetV2Config:
    # Zagoruyko & Komodakis, Wide Residual Networks, 2016: 6n + 4 weighted layers, counting the three projections.
    return ResNetV2Config(
        block="basic",
        depths=((depth - 4) // 6,) * 3,
        filters=(16 * width, 32 * width, 64 * width),
        stem="conv3",
        stem_filters=16,
        stem_pool="none",
        project="where_needed",
    )


_CIFAR_DEPTHS = (20, 32, 44, 56, 110, 302, 1202)
_WIDE = ((16, 4), (16, 8), (22, 8), (28, 10), (28, 12), (40, 4), (40, 10))

CIFAR: MappingProxyType[str, ResNetConfig | ResNetV2Config] = MappingProxyType(
    {
        **{f"cifar_resnet{depth}": _cifar(depth) for depth in _CIFAR_DEPTHS},
        **{f"cifar_resnet{depth}b": _cifar(depth, "projection") for depth in _CIFAR_DEPTHS},
        "cifar_preact_resnet110": _preact(110, "basic"),
        "cifar_preact_resnet164": _preact(164, "bottleneck"),
        "cifar_preact_resnet1001": _preact(1001, "bottleneck"),
        **{f"cifar_wrn_{depth}_{width}": _wide(depth, width) for depth, width in _WIDE},
    }
)
"""Networks for pictures of some 32×32 pixels; `b` has projections (option B) in place of zeros (option A)."""

_VOLUME_DEPTHS = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}

VOLUMES: MappingProxyType[str, ResNetConfig] = MappingProxyType(
    {
        f"resnet3d_{depth}": ResNetConfig(block="basic" if depth < 50 else "bottleneck", depths=depths, rank=3)
        for depth, depths in _VOLUME_DEPTHS.items()
    }
)
"""3-D ResNets for volumes and clips. Hara et al., Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs, 2017."""

KERAS: MappingProxyType[str, ResNetConfig] = MappingProxyType(
    {
        f"keras_resnet{depth}": ResNetConfig(depths=_VOLUME_DEPTHS[depth], strides_first=True, zero_init_last=False)
        for depth in (50, 101, 152)
    }
)
"""The networks of `keras.applications`, which have the stride in the first convolution of a block."""

OTHER: MappingProxyType[str, ResNetConfig | SeriesResNetConfig | TabularResNetConfig] = MappingProxyType(
    {
        "small_resnet": ResNetConfig(
            block="basic", depths=(1, 1, 1), widths=(32, 64, 128), stem="conv3", stem_filters=32, stem_pool="none"
        ),
        "series_resnet": SeriesResNetConfig(),
        "tabular_resnet": TabularResNetConfig(),
    }
)
"""Networks of no published depth, for pictures of any small size, series and tables."""
