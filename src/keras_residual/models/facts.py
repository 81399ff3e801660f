"""Facts about each name, without building it: architecture in words, papers, costs, and pretrained weights.

Costs and pretrained weights are data: `data/costs.json`, which `tools/model_costs.py` counts, and
`data/timm_pretrained.json`, which `tools/timm_pretrained.py` takes from timm.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from keras_residual._errors import bad_argument, unknown_name, wrong_type
from keras_residual.models.catalog import CATALOG
from keras_residual.models.catalog.aliases import ALIASES
from keras_residual.models.config import ResNetConfig, ResNetV2Config, SeriesResNetConfig, TabularResNetConfig
from keras_residual.models.costs import Costs

# --- Pretrained weights -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PublishedResult:
    """An accuracy on the validation set of ImageNet-1k, as timm publishes it.

    Args:
        size: Edge of the square pictures, in pixels.
        crop_pct: Share of the resized picture that the crop keeps along an edge, in `(0, 1]`.
        top1: Share of pictures whose most probable class is right, in per cent.
    """

    size: int
    crop_pct: float
    top1: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainedWeights:
    """One set of pretrained weights.

    Args:
        architecture: Name of the architecture, `"resnet50"`.
        tag: Name of the weights among those of the architecture, `"a1_in1k"`.
        hf_hub_id: Repository on the Hugging Face Hub, or `None` if they are not there.
        url: Address of a PyTorch checkpoint, for weights that are not on the Hub; else `None`.
        input_size: Height and width of pictures in training.
        test_input_size: Height and width at which the weights do best.
        crop_pct: Share of the resized picture that the crop keeps along an edge at `input_size`, in `(0, 1]`.
        test_crop_pct: The same at `test_input_size`.
        crop_mode: `"center"`, `"squash"` or `"border"`, see `Preprocessing`.
        interpolation: `"bilinear"` or `"bicubic"`.
        mean: Mean that is subtracted from each channel of pictures with values 0..1.
        std: Standard deviation by which each channel is divided afterwards.
        num_classes: Number of classes of the head; 0 if there is none.
        license: Licence by its SPDX name in lower case, `"unknown"`, or `None` if none is stated.
        paper_ids: Papers on the training, such as `"arXiv:2110.00476"`.
        results: Published accuracies, ordered by picture size; empty if there are none.
    """

    architecture: str
    tag: str
    hf_hub_id: str | None
    url: str | None
    input_size: tuple[int, int]
    test_input_size: tuple[int, int]
    crop_pct: float
    test_crop_pct: float
    crop_mode: str
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int
    license: str | None
    paper_ids: tuple[str, ...]
    results: tuple[PublishedResult, ...]

    @property
    def name(self) -> str:
        """Architecture and tag, `"resnet50.a1_in1k"`."""
        return f"{self.architecture}.{self.tag}"


def pretrained_tags(architecture: str) -> tuple[str, ...]:
    """Returns the tags of an architecture's pretrained weights, the default first.

    Args:
        architecture: Name of an architecture, `"resnet50"`. One without pretrained weights has no tags.

    Raises:
        ValueError: For an unknown name, with the nearest one.

    Example:
        >>> pretrained_tags("resnet18")[:3]
        ('a1_in1k', 'a2_in1k', 'a3_in1k')
        >>> pretrained_tags("resnet50t")
        ()
    """
    _check_architecture("pretrained_tags", "architecture", architecture)
    entry = _pretrained().get(architecture)
    if not entry:
        return ()
    return tuple(sorted(entry["tags"], key=lambda tag: (tag != entry["default"], tag)))


def pretrained_weights(name: str) -> PretrainedWeights:
    """Returns the facts about a set of pretrained weights.

    Args:
        name: Architecture and tag, `"resnet50.a1_in1k"`, or an architecture alone for its default weights. Also the
            name that another library has for the same weights, such as `"ResNet50_Weights.IMAGENET1K_V2"`; see
            `ALIASES`.

    Raises:
        ValueError: For an unknown architecture or tag, with the nearest one, and for an architecture without pretrained
            weights.

    Example:
        >>> weights = pretrained_weights("resnet50.tv2_in1k")
        >>> weights.input_size, weights.interpolation, weights.license
        ((176, 176), 'bilinear', 'bsd-3-clause')
        >>> pretrained_weights("resnet50").name
        'resnet50.a1_in1k'
    """
    owner = "pretrained_weights"
    alias = ALIASES.get(name) if isinstance(name, str) else None
    if alias and not alias.same_weights:
        way_out = f"{alias.note} The nearest architecture here is {alias.target!r}."
        raise bad_argument(owner, "name", "the name of weights known to this library", name, way_out)
    target = alias.target if alias else name
    architecture, _, tag = target.partition(".") if isinstance(target, str) else (target, "", "")
    _check_architecture(owner, "name", architecture)
    tags = pretrained_tags(architecture)
    if not tags:
        rule = "an architecture with pretrained weights"
        way_out = (
            f"None are known for {architecture!r}: `create_model` builds it with random ones, and "
            "`Preprocessing` prepares pictures for it."
        )
        raise bad_argument(owner, "name", rule, name, way_out)
    tag = tag or tags[0]
    if tag not in tags:
        raise unknown_name(owner, "name", name, [f"{architecture}.{known}" for known in tags])
    entry = _pretrained()[architecture]["tags"][tag]
    return PretrainedWeights(
        architecture=architecture,
        tag=tag,
        hf_hub_id=entry.get("hf_hub_id"),
        url=entry.get("url"),
        input_size=tuple(entry["input_size"]),
        test_input_size=tuple(entry.get("test_input_size", entry["input_size"])),
        crop_pct=entry["crop_pct"],
        test_crop_pct=entry.get("test_crop_pct", entry["crop_pct"]),
        crop_mode=entry["crop_mode"],
        interpolation=entry["interpolation"],
        mean=tuple(entry["mean"]),
        std=tuple(entry["std"]),
        num_classes=entry["num_classes"],
        license=entry.get("license"),
        paper_ids=tuple(entry.get("paper_ids", ())),
        results=tuple(PublishedResult(*result) for result in entry.get("results", ())),
    )


# --- Costs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counted:
    """Counted costs of a network, with the input that they are for.

    Args:
        input_shape: Shape of one input, channels last.
        num_classes: Number of logits.
        costs: Its costs for this input.
    """

    input_shape: tuple[int, ...]
    num_classes: int
    costs: Costs

    @property
    def size(self) -> str:
        """The input in words: `"224×224"`, `"16×112×112"`, or `"32 features"` for a table."""
        *sizes, channels = self.input_shape
        return "×".join(map(str, sizes)) if sizes else f"{channels} features"


def counted(architecture: str) -> Counted:
    """Returns the costs of a network of the catalogue, without building it.

    Args:
        architecture: A name of the catalogue, without a tag.

    Raises:
        ValueError: For an unknown name, with the nearest one.

    Example:
        >>> counted("resnet50").size, counted("resnet50").costs.macs
        ('224×224', 4089184256)
    """
    if architecture not in _costs():
        raise unknown_name("counted", "architecture", architecture, _costs())
    entry = dict(_costs()[architecture])
    return Counted(tuple(entry.pop("input_shape")), entry.pop("num_classes"), Costs(**entry))


# --- Words and papers -------------------------------------------------------------------------------------------------

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
    "max_ceil": "max pooling, 3×3, stride 2, padded at the end only",
    "max_zero": "max pooling, 3×3, stride 2, padded with zeros",
    "conv": "3×3 convolution, stride 2",
    "none": "none",
}
_SHORTCUTS = {
    "projection": "convolution, 1×1",
    "avg_pool": "average pooling, then a 1×1 convolution",
    "zero_pad": "every second position, with zeros in the new channels",
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
    """Returns a description of an architecture, aspect by aspect.

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
    is_v2 = config.preactivation
    counts = {part: getattr(config, part, "") for part in ("scale", "radix")}
    kinds = [_BLOCKS[kind].format(**counts) for kind in dict.fromkeys(config.blocks)]
    found = {
        "version": "2, norm and activation before each convolution" if is_v2 else "1, activation after the sum",
        "block": "; ".join(kinds),
        "blocks in stages": _listed(config.depths),
        "channels after stages": _listed(config.stage_filters),
        "stem": _stem(config),
        "pool after the stem": _POOLS[config.stem_pool],
        "downsampling shortcut": _SHORTCUTS[config.shortcut],
        "norm": _NORMS[config.norm],
    }
    return found | (_more_of_v2(config) if is_v2 else _more_of_v1(config))


def papers(config: Any) -> tuple[str, ...]:
    """Returns the papers that introduced an architecture's parts, that of the family first.

    Example:
        >>> papers(ResNetConfig(depths=(3, 4, 6, 3), attention="se"))
        ('arXiv:1512.03385', 'arXiv:1709.01507')
    """
    if isinstance(config, SeriesResNetConfig):
        return ("arXiv:1611.06455",)
    if isinstance(config, TabularResNetConfig):
        return ("arXiv:2106.11959",)
    found = [_V2 if config.preactivation else _V1, _NORM_PAPERS.get(config.norm)]
    if config.preactivation:
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
    first, second, last = config.stem_widths
    return f"three 3×3 convolutions with {first}, {second} and {last} filters, stride 2"


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
        found["pruned"] = "each convolution has its own number of filters"
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


# --- Data files -------------------------------------------------------------------------------------------------------


def _check_architecture(owner: str, argument: str, name: Any) -> None:
    if not isinstance(name, str):
        raise wrong_type(owner, argument, "the name of an architecture", name)
    if name not in _pretrained() and name not in CATALOG:
        raise unknown_name(owner, argument, name, {*_pretrained(), *CATALOG})


@functools.cache
def _pretrained() -> MappingProxyType[str, Any]:
    """Returns by architecture `{"default": tag, "tags": {tag: facts}}`."""
    return MappingProxyType(_data("timm_pretrained.json")["architectures"])


@functools.cache
def _costs() -> MappingProxyType[str, Any]:
    return MappingProxyType(_data("costs.json"))


def _data(name: str) -> Any:
    return json.loads(files("keras_residual.models").joinpath("data", name).read_text(encoding="utf-8"))
