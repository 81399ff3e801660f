"""Networks for small pictures, volumes, series and tables: names and the architectures behind them, by family."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from keras_residual.models.catalog.imagenet import BASIC, DEPTHS
from keras_residual.models.config import (
    Config,
    ResNetConfig,
    ResNetV2Config,
    SeriesResNetConfig,
    TabularResNetConfig,
)


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
"""Networks for pictures of about 32×32 pixels; those with a `b` project (option B) instead of padding (option A)."""

VOLUMES: MappingProxyType[str, ResNetConfig] = MappingProxyType(
    {
        f"resnet3d_{depth}": ResNetConfig(
            block="basic" if depth in BASIC else "bottleneck", depths=DEPTHS[depth], rank=3
        )
        for depth in (10, 18, 34, 50, 101, 152, 200)
    }
)
"""3-D ResNets for volumes and clips. Hara et al., Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs, 2017."""

OTHER: MappingProxyType[str, Config] = MappingProxyType(
    {
        "small_resnet": ResNetConfig(
            block="basic", depths=(1, 1, 1), widths=(32, 64, 128), stem="conv3", stem_filters=32, stem_pool="none"
        ),
        "series_resnet": SeriesResNetConfig(),
        "tabular_resnet": TabularResNetConfig(),
    }
)
"""Networks for small pictures of any size, series and tables."""

FAMILIES: MappingProxyType[str, Any] = MappingProxyType({"cifar": CIFAR, "resnet3d": VOLUMES, "other": OTHER})
"""The names of each family."""

USUAL_INPUTS: MappingProxyType[str, tuple[tuple[int, ...], int]] = MappingProxyType(
    {
        "cifar": ((32, 32, 3), 10),
        "resnet3d": ((16, 112, 112, 3), 400),
        "small_resnet": ((32, 32, 3), 10),
        "series_resnet": ((512, 1), 10),
        "tabular_resnet": ((32,), 10),
    }
)
"""Shape of one input, channels last, and number of classes for which costs are given, by name or family."""
