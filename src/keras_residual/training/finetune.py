"""Fine-tuning: weights that a network begins with, the pictures that they expect, and what is trained when."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import keras
import numpy as np

from keras_residual._errors import bad_argument, printable, shown
from keras_residual.models.catalog import CATALOG, family_of
from keras_residual.models.facts import pretrained_weights
from keras_residual.models.freezing import freeze, freeze_batch_norms, parts
from keras_residual.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from keras_residual.models.registry import address, resolve
from keras_residual.training.config import ModelConfig, TrainConfig, settled
from keras_residual.weights.hub import open_location
from keras_residual.weights.load import set_weights
from keras_residual.weights.names import slots

if TYPE_CHECKING:
    from keras_residual.data import Dataset

FEW_PICTURES, FEW_IN_A_BATCH = 5_000, 16
"""Batch norms stay frozen below either, unless they are told otherwise: so few pictures do not give better statistics
than those of the weights. Below 16 in a batch their error rises: Wu and He, Group Normalization, 2018."""

EPOCHS, LEAST_STEPS, MOST_EPOCHS = 5, 200, 50
"""Epochs where nobody has chosen: as many as make this number of steps, in bounds. 1 + 4 are usual in fastai's lessons;
with some dozens of pictures they would be over before anything has been learned."""

_USUAL_SIZE, _USUAL_CROP = 224, 0.875


@dataclass(frozen=True, eq=False)
class Pretrained:
    """Weights to begin with, and how the pictures that they were trained on were prepared.

    Args:
        architecture: A name of the catalogue.
        tensors: Arrays by the names of the program that saved them.
        source: Where they come from.
        mean: Mean of each channel, of values 0..1.
        std: Deviation of each channel.
        size: Edge of the pictures; None where the weights take those of any small size.
        crop_pct: Share of the scaled picture that the crop keeps along an edge.
        told: Whether the weights say all that themselves, or it is what is usual.
    """

    architecture: str
    tensors: Mapping[str, np.ndarray]
    source: str
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    size: int | None = None
    crop_pct: float = 1.0
    told: bool = False

    @property
    def scaled(self) -> int | None:
        """Edge to which pictures are scaled before the crop; None where the weights take those of any small size."""
        return None if self.size is None else math.floor(self.size / self.crop_pct)


def read_pretrained(config: ModelConfig) -> Pretrained | None:
    """Reads the weights that a network is to begin with; None where it is to begin with random ones.

    Raises:
        ValueError: For an unknown name, or where nobody says which network the weights are of.
        CheckpointError: If there are no weights at that place.
        ConnectionError: If they are not on this machine and cannot be downloaded.
    """
    if config.name == "auto":
        if config.weights is None:
            return None
        architecture, tag = None, None
    else:
        architecture, tag = resolve(config.name)
    known = pretrained_weights(f"{architecture}.{tag}") if tag else None
    place = config.weights or (known and address(known))
    if place is None:
        return None
    found = open_location(place)
    about = found.config or {}
    if architecture is None:
        architecture = str(about.get("architecture"))
        if architecture not in CATALOG:
            raise ValueError(
                f"The weights {shown(str(config.weights))} do not say which network they are of. Name it: --model NAME"
            )
    facts: dict[str, Any] = {}
    if family_of(architecture) not in ("cifar", "other"):
        facts = {"size": _USUAL_SIZE, "crop_pct": _USUAL_CROP}
    if known is not None:
        facts = {"mean": known.mean, "std": known.std, "size": known.input_size[0], "crop_pct": known.crop_pct}
    said = _in_timm_config(about)
    told = known is not None or {"mean", "std"} <= said.keys()
    return Pretrained(architecture, found.tensors, found.source, **{**facts, **said}, told=told)


def with_pictures_of(config: TrainConfig, weights: Pretrained) -> TrainConfig:
    """Returns a configuration that prepares pictures as those were that the weights were trained on.

    What it sets of size, crop, mean and deviation stays.
    """
    values: dict[str, Any] = {}
    if not (config.model.mean or config.model.std):
        values |= {"model.mean": list(weights.mean), "model.std": list(weights.std)}
    if config.data.image_size is None and weights.scaled is not None:
        values["data.image_size"] = weights.scaled
        if weights.scaled != weights.size and config.model.crop is None:
            values["model.crop"] = weights.size
    return config.updated(values)


def check_finetuning(config: TrainConfig, dataset: Dataset, *, begins: bool) -> None:
    """Raises a ValueError where there are no weights to fine-tune, or no pictures to do it with."""
    tuning = config.finetune
    if not begins and (tuning.head_epochs != 0 or tuning.stage_rate < 1):
        raise ValueError(
            "TrainConfig: fine-tuning begins with weights, and there are none. Name a network with some, such as "
            "--model resnet50.a1_in1k, or a file, a folder or hf://owner/name: --weights PLACE"
        )
    if begins and dataset.kind != "pictures":
        raise ValueError(
            f"Data {shown(dataset.name)}: weights to begin with are those of a network on pictures, and the data is a "
            "table. Leave `model.weights` away."
        )
    crop, side = config.model.crop, min(dataset.input_shape[:2])
    if crop is not None and dataset.kind == "pictures" and crop > side:
        raise bad_argument("TrainConfig", "model.crop", f"at most the pictures' edge, {side}", crop)


def begin_with(network: keras.Model, weights: Pretrained) -> None:
    """Sets the weights of a new network but for its head, which stays as it is.

    Raises:
        CheckpointError: If they are those of another one.
    """
    head = [(slot, slot.read().copy()) for slot in slots(network) if slot.path.startswith("head/")]
    set_weights(network, weights.tensors, source=weights.source, new_head=True)
    for slot, value in head:
        slot.variable.assign(value)


def said(config: TrainConfig, weights: Pretrained, dataset: Dataset) -> tuple[str, ...]:
    """Returns sentences about what the weights are, what is done to pictures for them, and what is trained when."""
    scaled, crop = "×".join(map(str, dataset.input_shape[:2])), config.model.crop
    pictures = f"scaled to {scaled}" + (f", of which the network sees the middle {crop}×{crop}" if crop else "")
    numbers = ", ".join(f"{kind} {_listed(getattr(config.model, kind))}" for kind in ("mean", "std"))
    whose = "as the weights expect them" if weights.told else (
        "as is usual, since the weights do not say what they expect; set model.mean and model.std if you know better"
    )  # fmt: skip
    lines = [
        f"{printable(config.model.name)} begins with the weights of {printable(weights.source)}, with a new head for "
        f"{len(dataset.classes) or 1} {'classes' if dataset.classes else 'number'}.",
        f"Pictures are {pictures}, and standardised by {numbers}, {whose}.",
    ]
    tuning, epochs = config.finetune, settled(config.epochs)
    head_epochs = settled(tuning.head_epochs)
    if head_epochs:
        first = f"Epoch{'s 1 to ' if head_epochs > 1 else ' '}{min(head_epochs, epochs)}"
        lines.append(f"{first} of {epochs}: the head alone. Afterwards everything.")
    if tuning.stage_rate < 1:
        lines.append(f"Each stage has {tuning.stage_rate:.3g} of the learning rate of the one behind it.")
    if tuning.batch_norm == "frozen":
        lines.append(
            f"Batch norms keep the statistics of the weights, as they do by default below {FEW_PICTURES:,} pictures or "
            f"{FEW_IN_A_BATCH} in a batch; finetune.batch_norm=trained trains them."
        )
    return tuple(lines)


# --- What is trained when --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Phase:
    """Epochs with one and the same set of weights that are trained, by one optimizer.

    Args:
        until: Epochs of the run that are done at its end.
        begin: Makes the network ready for it, and compiles it.
    """

    until: int
    begin: Callable[[], None]


def phases(
    body: keras.Model | None, config: TrainConfig, compiled: Callable[[TrainConfig, int, Sequence[float] | None], None]
) -> tuple[Phase, ...]:
    """Returns the phases of a training: the head, then everything; for weights that are random everything at once.

    Args:
        body: The network of the catalogue, whose parts are trained in turn and at rates of their own; None for another.
        config: Without "auto".
        compiled: Compiles the learner by a configuration, for a number of epochs, with a share of the rate for each of
            its trainable weights.
    """
    epochs, tuning = settled(config.epochs), config.finetune
    head_epochs = min(settled(tuning.head_epochs), epochs) if body is not None else 0

    def all_of_it() -> None:
        if body is None:
            return compiled(config, epochs, None)
        thaw(body, config)
        rate = settled(config.optimizer.learning_rate) * (tuning.thawed_rate if head_epochs else 1)
        shares = _shares(body, tuning.stage_rate) if tuning.stage_rate < 1 else None
        return compiled(config.updated({"optimizer.learning_rate": rate}), epochs - head_epochs, shares)

    def head_alone() -> None:
        if body is not None:
            for part, layers in parts(body).items():
                for layer in layers:
                    layer.trainable = part == "head"
            compiled(config, head_epochs, None)

    head = [Phase(head_epochs, head_alone)] if head_epochs else []
    return (*head, *([Phase(epochs, all_of_it)] if head_epochs < epochs else []))


def thaw(body: keras.Model, config: TrainConfig) -> None:
    """Makes everything of a network trainable that is trained at all."""
    freeze(body, "none")
    if config.finetune.batch_norm == "frozen":
        freeze_batch_norms(body)


def _shares(body: keras.Model, stage_rate: float) -> list[float]:
    """Returns the share of the learning rate of each trainable weight, in their order."""
    found = parts(body)
    behind = {part: len(found) - 1 - place for place, part in enumerate(found)}
    shares = {
        id(v): stage_rate ** behind[part] for part, layers in found.items() for la in layers for v in la.variables
    }
    return [shares[id(variable)] for variable in body.trainable_variables]


def _in_timm_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the `config.json` of timm's layout says of pictures, as far as it makes sense."""
    about = config.get("pretrained_cfg", config)
    if not isinstance(about, Mapping):
        return {}
    found: dict[str, Any] = {}
    for key in ("mean", "std"):
        value = about.get(key)
        if isinstance(value, list) and value and all(_is_number(item) for item in value):
            found[key] = tuple(float(item) for item in value)
    if "std" in found and not all(item > 0 for item in found["std"]):
        del found["std"]
    size, crop = about.get("input_size"), about.get("crop_pct")
    if isinstance(size, list) and len(size) == 3 and isinstance(size[-1], int) and 4 <= size[-1] <= 4096:
        found["size"] = size[-1]
    if _is_number(crop) and 0.1 <= crop <= 1:
        found["crop_pct"] = float(crop)
    return found


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _listed(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values)})"
