"""What is known of each set of pretrained weights: where it lies, what pictures it expects, what it scores.

The facts are data, `data/timm_pretrained.json`, which `tools/timm_pretrained.py` takes from timm.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from keras_residual._errors import bad_argument, unknown_name, wrong_type
from keras_residual.models.aliases import ALIASES
from keras_residual.models.catalog import CATALOG


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
        hf_hub_id: Repository on the Hugging Face Hub, or `None` where they are not on it.
        url: Address of a PyTorch checkpoint, for weights that are not on the Hub, else `None`.
        input_size: Height and width of pictures in training.
        test_input_size: Height and width at which the weights do best.
        crop_pct: Share of the resized picture that the crop keeps along an edge at `input_size`, in `(0, 1]`.
        test_crop_pct: The same at `test_input_size`.
        crop_mode: `"center"`, `"squash"` or `"border"`, see `Preprocessing`.
        interpolation: `"bilinear"` or `"bicubic"`.
        mean: Mean that is subtracted from each channel of pictures with values 0..1.
        std: Deviation by which each channel is divided afterwards.
        num_classes: Number of classes of the head; 0 where there is none.
        license: Licence by its SPDX name in lower case, `"unknown"`, or `None` where nothing is said.
        paper_ids: Papers on the training, such as `"arXiv:2110.00476"`.
        results: Published accuracies by rising picture size; empty where there are none.
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
    """Returns the tags of an architecture's pretrained weights, that of the default ones first.

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
    entry = _table().get(architecture)
    if not entry:
        return ()
    return tuple(sorted(entry["tags"], key=lambda tag: (tag != entry["default"], tag)))


def pretrained_weights(name: str) -> PretrainedWeights:
    """Returns what is known of a set of pretrained weights.

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
        raise bad_argument(owner, "name", "the name of weights that this library has", name, way_out)
    target = alias.target if alias else name
    architecture, _, tag = target.partition(".") if isinstance(target, str) else (target, "", "")
    _check_architecture(owner, "name", architecture)
    tags = pretrained_tags(architecture)
    if not tags:
        rule = "an architecture with pretrained weights"
        way_out = (
            f"The library knows of none for {architecture!r}: `create_model` makes it with random ones, and "
            "`Preprocessing` prepares pictures for it."
        )
        raise bad_argument(owner, "name", rule, name, way_out)
    tag = tag or tags[0]
    if tag not in tags:
        raise unknown_name(owner, "name", name, [f"{architecture}.{known}" for known in tags])
    entry = _table()[architecture]["tags"][tag]
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


def _check_architecture(owner: str, argument: str, name: Any) -> None:
    if not isinstance(name, str):
        raise wrong_type(owner, argument, "the name of an architecture", name)
    if name not in _table() and name not in CATALOG:
        raise unknown_name(owner, argument, name, {*_table(), *CATALOG})


@functools.cache
def _table() -> MappingProxyType[str, Any]:
    """Returns by architecture `{"default": tag, "tags": {tag: facts}}`."""
    text = files("keras_residual.models").joinpath("data", "timm_pretrained.json").read_text(encoding="utf-8")
    return MappingProxyType(json.loads(text)["architectures"])
