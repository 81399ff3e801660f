"""Names that other libraries use for networks and weights, and the names here: data only."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True, slots=True)
class Alias:
    """A name of another library.

    Args:
        source: The other library: `"torchvision"`, `"keras_hub"` or `"keras_applications"`.
        name: Its name.
        target: The name here: architecture and tag where the weights are the same, else the nearest architecture.
        same_architecture: Whether the networks compute the same from equal weights.
        same_weights: Whether the pretrained weights are the same too.
        note: What differs; empty if nothing does.
    """

    source: str
    name: str
    target: str
    same_architecture: bool
    same_weights: bool
    note: str = ""


def resolve_alias(name: str) -> str | None:
    """Returns the name here of another library's network, or `None`.

    `None` also if the nearest network here is not the same one; `ALIASES` says which that is. If the network is the
    same but its pretrained weights differ, the name is that of the architecture alone, and
    `ALIASES[name].same_weights` is false.

    Example:
        >>> resolve_alias("ResNet50_Weights.IMAGENET1K_V2")
        'resnet50.tv2_in1k'
        >>> resolve_alias("ResNet50V2") is None, ALIASES["ResNet50V2"].target
        (True, 'resnetv2_50')
    """
    alias = ALIASES.get(name)
    return alias.target if alias and alias.same_architecture else None


# Builder, class of its weights, and which of the two sets V1 and V2 there are.
_TORCHVISION = (
    ("resnet18", "ResNet18_Weights", 1),
    ("resnet34", "ResNet34_Weights", 1),
    ("resnet50", "ResNet50_Weights", 2),
    ("resnet101", "ResNet101_Weights", 2),
    ("resnet152", "ResNet152_Weights", 2),
    ("resnext50_32x4d", "ResNeXt50_32X4D_Weights", 2),
    ("resnext101_32x8d", "ResNeXt101_32X8D_Weights", 2),
    ("resnext101_64x4d", "ResNeXt101_64X4D_Weights", 1),
    ("wide_resnet50_2", "Wide_ResNet50_2_Weights", 2),
    ("wide_resnet101_2", "Wide_ResNet101_2_Weights", 2),
)
_TORCHVISION_TAGS = {1: "tv_in1k", 2: "tv2_in1k"}

# KerasHub's own conversion script names the timm weights that each of these is.
_KERAS_HUB_FROM_TIMM = {
    "resnet_18_imagenet": "resnet18.a1_in1k",
    "resnet_50_imagenet": "resnet50.a1_in1k",
    "resnet_101_imagenet": "resnet101.a1_in1k",
    "resnet_152_imagenet": "resnet152.a1_in1k",
    "resnet_v2_50_imagenet": "resnetv2_50.a1h_in1k",
    "resnet_v2_101_imagenet": "resnetv2_101.a1h_in1k",
}
_PADDLE = "Its weights are PaddleClas's."
_KERAS_HUB_VD = {
    "resnet_vd_50_imagenet": "resnet50d",
    "resnet_vd_50_ssld_imagenet": "resnet50d",
    "resnet_vd_50_ssld_v2_imagenet": "resnet50d",
    "resnet_vd_50_ssld_v2_fix_imagenet": "resnet50d",
    "resnet_vd_101_imagenet": "resnet101d",
    "resnet_vd_101_ssld_imagenet": "resnet101d",
    "resnet_vd_152_imagenet": "resnet152d",
}
_PROJECTION = f"{_PADDLE} It projects the shortcut of the first block too, where {{}} has the identity."
_KERAS_HUB_OTHER_NETS = {
    "resnet_vd_18_imagenet": ("resnet18d", _PROJECTION.format("resnet18d")),
    "resnet_vd_34_imagenet": ("resnet34d", _PROJECTION.format("resnet34d")),
    "resnet_vd_200_imagenet": (
        "resnet200d",
        f"{_PADDLE} Its stages have 3, 12, 48 and 3 blocks, those of resnet200d 3, 24, 36 and 3.",
    ),
}

_V1 = (
    "Its convolutions have biases and its batch norms an epsilon of 1.001e-5, which the statistics take up: pass the "
    ".h5 file that keras.applications keeps in ~/.keras/models as weights."
)
_V2 = (
    "Its stem, its last convolutions and its projections have biases, its batch norms an epsilon of 1.001e-5, and its "
    "strides are in the last block of a stage, where {} has them in the first one."
)
_KERAS_APPLICATIONS = {
    "ResNet50": ("keras_resnet50", _V1),
    "ResNet101": ("keras_resnet101", _V1),
    "ResNet152": ("keras_resnet152", _V1),
    "ResNet50V2": ("resnetv2_50", _V2),
    "ResNet101V2": ("resnetv2_101", _V2),
    "ResNet152V2": ("resnetv2_152", _V2),
}


def _torchvision() -> list[Alias]:
    found = []
    for builder, weights, versions in _TORCHVISION:
        names = {f"IMAGENET1K_V{version}": version for version in range(1, versions + 1)} | {"DEFAULT": versions}
        for name, version in names.items():
            target = f"{builder}.{_TORCHVISION_TAGS[version]}"
            for prefix in (builder, weights):
                found.append(_same("torchvision", f"{prefix}.{name}", target))
    return found


def _same(source: str, name: str, target: str) -> Alias:
    return Alias(source=source, name=name, target=target, same_architecture=True, same_weights=True)


def _other(source: str, name: str, target: str, note: str, same_architecture: bool = False) -> Alias:
    return Alias(
        source=source, name=name, target=target, same_architecture=same_architecture, same_weights=False, note=note
    )


ALIASES: MappingProxyType[str, Alias] = MappingProxyType(
    {
        alias.name: alias
        for alias in (
            *_torchvision(),
            *(_same("keras_hub", name, target) for name, target in _KERAS_HUB_FROM_TIMM.items()),
            *(_other("keras_hub", name, target, _PADDLE, True) for name, target in _KERAS_HUB_VD.items()),
            *(_other("keras_hub", name, target, note) for name, (target, note) in _KERAS_HUB_OTHER_NETS.items()),
            *(
                _other("keras_applications", name, target, note.format(target), note is _V1)
                for name, (target, note) in _KERAS_APPLICATIONS.items()
            ),
        )
    }
)
