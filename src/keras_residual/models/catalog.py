"""Names and the architectures behind them: data only."""

from __future__ import annotations

from types import MappingProxyType

from keras_residual.models.resnet import ResNetConfig
from keras_residual.models.series import SeriesResNetConfig
from keras_residual.models.tabular import TabularResNetConfig

Config = ResNetConfig | SeriesResNetConfig | TabularResNetConfig


def _cifar(depth: int) -> ResNetConfig:
    # He et al. 2015, section 4.2: 6n + 2 weighted layers, option A.
    return ResNetConfig(
        block="basic",
        depths=((depth - 2) // 6,) * 3,
        widths=(16, 32, 64),
        shortcut="zero_pad",
        zero_init_last=False,
    )


CATALOG: MappingProxyType[str, Config] = MappingProxyType(
    {
        "small_resnet": ResNetConfig(block="basic", depths=(1, 1, 1), widths=(32, 64, 128), stem_filters=32),
        **{f"cifar_resnet{depth}": _cifar(depth) for depth in (20, 32, 44, 56, 110, 302, 1202)},
        # He et al. 2016, table 2: 6n + 2 with basic blocks, 9n + 2 with bottlenecks.
        "cifar_preact_resnet110": ResNetConfig(block="preact_basic", depths=(18, 18, 18), widths=(16, 32, 64)),
        "cifar_preact_resnet164": ResNetConfig(block="preact_bottleneck", depths=(18, 18, 18), widths=(16, 32, 64)),
        "series_resnet": SeriesResNetConfig(),
        "tabular_resnet": TabularResNetConfig(),
    }
)
