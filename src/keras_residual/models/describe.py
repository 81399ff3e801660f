"""An architecture in words, and the papers that it is from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_residual.models.resnet_config import ResNetConfig
from keras_residual.models.resnet_v2 import ResNetV2Config
from keras_residual.models.series import SeriesResNetConfig
from keras_residual.models.tabular import TabularResNetConfig

_BLOCKS = {
    "basic": "basic: two 3×3 convolutions",
    "bottleneck": "bottleneck: 1×1, 3×3 and 1×1 convolutions",
    "res2net": "bottleneck with a 3×3 convolution of {scale} scales",
    "resnest": "bottleneck with split attention of radix {radix}",
    "sk_basic": "basic with a selective kernel",
    "sk_bottleneck": "bottleneck with a selective kernel",
}
_POOLS = {
    "max": "max pooling, 3×3, stride 2",
    "max_ceil": "max pooling, 3×3, stride 2, padded behind only",
    "max_zero": "max pooling, 3×3, stride 2, padded with zeros",
    "conv": "3×3 convolution, stride 2",
    "none": "none",
}
_SHORTCUTS = {
    "projection": "convolution, 1×1",
    "avg_pool": "average pooling, then a 1×1 convolution",
    "zero_pad": "every second position, and zeros for the new channels",
}
_NORMS = {
    "batch_norm": "batch norm",
    "group_norm": "group norm",
    "evonorm_s0": "EvoNorm-S0",
    "filter_response_norm": "filter response norm",
}
_ANTI_ALIASING = {"average": "average pooling for strides", "blur": "blur pooling for strides"}
_ATTENTION = {"se": "squeeze-and-excitation", "eca": "efficient channel attention"}

_V1, _V2 = "arXiv:1512.03385", "arXiv:1603.05027"
_BLOCK_PAPERS = {"res2net": "arXiv:1904.01169", "resnest": "arXiv:2004.08955", "sk": "arXiv:1903.06586"}
_ATTENTION_PAPERS = {"se": "arXiv:1709.01507", "eca": "arXiv:1910.03151"}
_NORM_PAPERS = {
    "group_norm": "arXiv:1803.08494",
    "evonorm_s0": "arXiv:2004.02967",
    "filter_response_norm": "arXiv:1911.09737",
}


def describe(config: Any) -> dict[str, str]:
    """Returns what an architecture is in words, by what is described.

    Args:
        config: A configuration of the catalogue.

    Example:
        >>> describe(ResNetConfig(depths=(3, 4, 6, 3)))["stem"]
        '7×7 convolution with 64 filters, stride 2'
    """
    if isinstance(config, SeriesResNetConfig):
        return {
            "blocks": f"{len(config.filters)}, of {len(config.kernel_sizes)} convolutions each",
            "filters": _listed(config.filters),
            "windows": f"{_listed(config.kernel_sizes)} steps",
        }
    if isinstance(config, TabularResNetConfig):
        return {
            "blocks": f"{config.depth}, of two dense layers each",
            "width": f"{config.units}, {config.hidden_factor * config.units} inside a block",
            "dropout": f"{config.hidden_dropout:g} inside a block, {config.residual_dropout:g} at its end",
        }
    is_v2 = isinstance(config, ResNetV2Config)
    blocks = {config.block: None} if is_v2 else dict.fromkeys(config.blocks)
    kinds = [
        _BLOCKS[kind].format(**{part: getattr(config, part, "") for part in ("scale", "radix")}) for kind in blocks
    ]
    found = {
        "version": "2, norm and activation before each convolution" if is_v2 else "1, activation after the sum",
        "block": "; ".join(kinds),
        "blocks in stages": _listed(config.depths),
        "channels after stages": _listed(config.filters if is_v2 else config.stage_filters),
        "stem": _stem(config),
        "pool after the stem": _POOLS[config.stem_pool],
        "downsampling shortcut": _SHORTCUTS[config.shortcut],
        "norm": _NORMS[config.norm],
    }
    return found | (_more_of_v2(config) if is_v2 else _more_of_v1(config))


def papers(config: Any) -> tuple[str, ...]:
    """Returns the papers that an architecture is from, that of the family first.

    Example:
        >>> papers(ResNetConfig(depths=(3, 4, 6, 3), attention="se"))
        ('arXiv:1512.03385', 'arXiv:1709.01507')
    """
    if isinstance(config, SeriesResNetConfig):
        return ("arXiv:1611.06455",)
    if isinstance(config, TabularResNetConfig):
        return ("arXiv:2106.11959",)
    found = [_V2 if isinstance(config, ResNetV2Config) else _V1, _NORM_PAPERS.get(config.norm)]
    if isinstance(config, ResNetV2Config):
        is_wide = config.block == "basic" and config.filters[0] > config.stem_filters
        found += ["arXiv:1605.07146" if is_wide else None]
        found += ["arXiv:1912.11370" if config.convolution == "standardized" else None]
    else:
        found += [_BLOCK_PAPERS.get(block.partition("_")[0]) for block in config.blocks]
        found += [_ATTENTION_PAPERS.get(config.attention or "")]
        found += ["arXiv:1611.05431" if config.cardinality > 1 else None]
        found += ["arXiv:1605.07146" if config.cardinality == 1 and config.base_width > 64 else None]
        found += ["arXiv:1904.11486" if config.anti_aliasing == "blur" else None]
        found += ["arXiv:2103.07579" if config.stem_pool == "conv" else None]
        found += ["arXiv:2002.08258" if config.inner_widths is not None else None]
    if config.stem.startswith("deep") or config.shortcut == "avg_pool":
        found += ["arXiv:1812.01187"]
    return tuple(dict.fromkeys(paper for paper in found if paper))


def _stem(config: Any) -> str:
    filters = config.stem_filters
    if config.stem in ("conv7", "conv3"):
        size, stride = ("7×7", ", stride 2") if config.stem == "conv7" else ("3×3", "")
        return f"{size} convolution with {filters} filters{stride}"
    first = 3 * filters // 8 if config.stem == "deep_tiered" else filters // 2
    return f"three 3×3 convolutions with {first}, {filters // 2} and {filters} filters, stride 2"


def _more_of_v1(config: ResNetConfig) -> dict[str, str]:
    found = {}
    if config.rank != 2:
        found["dimensions"] = str(config.rank)
    if config.cardinality > 1:
        found["groups"] = f"{config.cardinality}, {config.base_width} wide in the first stage"
    elif config.base_width != 64:
        found["base width"] = f"{config.base_width} of 64"
    if config.attention is not None:
        found["attention"] = _ATTENTION[config.attention]
    if config.anti_aliasing is not None:
        found["anti-aliasing"] = _ANTI_ALIASING[config.anti_aliasing]
    if config.strides_first:
        found["stride"] = "in the first 1×1 convolution of a bottleneck"
    if config.inner_widths is not None:
        found["pruned"] = "each convolution has a number of filters of its own"
    return found


def _more_of_v2(config: ResNetV2Config) -> dict[str, str]:
    found = {}
    if config.convolution == "standardized":
        found["convolution"] = "with weight standardisation"
    if config.dropout_rate:
        found["dropout"] = f"{config.dropout_rate:g} inside a block"
    return found


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
