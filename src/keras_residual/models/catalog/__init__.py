"""Names and the architectures behind them: data only, a family a file."""

from __future__ import annotations

from types import MappingProxyType

from keras_residual.models.catalog import resnet, resnet_v2, senet, small, variants
from keras_residual.models.resnet_config import ResNetConfig
from keras_residual.models.resnet_v2 import ResNetV2Config
from keras_residual.models.series import SeriesResNetConfig
from keras_residual.models.tabular import TabularResNetConfig

Config = ResNetConfig | ResNetV2Config | SeriesResNetConfig | TabularResNetConfig

FAMILIES: MappingProxyType[str, MappingProxyType[str, Config]] = MappingProxyType(
    {
        "resnet": resnet.NAMES,
        "resnetv2": resnet_v2.NAMES,
        "resnest": variants.RESNEST,
        "res2net": variants.RES2NET,
        "sknet": variants.SKNET,
        "senet": senet.NAMES,
        "keras": small.KERAS,
        "cifar": small.CIFAR,
        "resnet3d": small.VOLUMES,
        "other": small.OTHER,
    }
)
"""The names of each family. The first six are timm's, by the modules that timm has them in."""

CATALOG: MappingProxyType[str, Config] = MappingProxyType(
    {name: config for family in FAMILIES.values() for name, config in family.items()}
)
"""Every architecture by its name."""


def family_of(name: str) -> str:
    """Returns the family of a name of the catalogue."""
    return next(family for family, names in FAMILIES.items() if name in names)
