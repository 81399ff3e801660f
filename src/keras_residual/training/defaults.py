"""The settings that a configuration leaves to us: by the kind of data, its size, and for the built-in sets by trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_residual._errors import bad_argument, printable, unknown_name
from keras_residual.models.catalog import CATALOG, usual_input
from keras_residual.training.finetune import (
    EPOCHS,
    FEW_IN_A_BATCH,
    FEW_PICTURES,
    LEAST_STEPS,
    MOST_EPOCHS,
    Pretrained,
)
from keras_residual.training.recipes import RECIPES

if TYPE_CHECKING:
    from keras_residual.data.dataset import Dataset
    from keras_residual.training.config import TrainConfig

MODELS = {"pictures": "small_resnet", "table": "tabular_resnet"}
LEARNING_RATE = {"pictures": 3e-3, "table": 1e-3}
FINETUNED = 1e-3  # of weights to begin with, and of a model of the caller's own

# Pictures that mean the same in a mirror. Digits and letters do not, so nothing else is mirrored unasked.
MIRRORED = frozenset({"cifar10", "cifar100"})


@dataclass(frozen=True)
class Choice:
    """Passes over the training examples, examples per step, and how hard the network is held back."""

    epochs: int
    batch_size: int
    weight_decay: float = 0.05
    drop_path_rate: float = 0.0


# Found by trial over five seeds. Most of what varies in `diabetes` is noise, which a free network learns by heart.
CHOICES = {
    "digits": Choice(16, 32),
    "breast_cancer": Choice(40, 32),
    "wine": Choice(60, 16),
    "diabetes": Choice(40, 32, weight_decay=10.0, drop_path_rate=0.5),
}


def resolve(config: TrainConfig, dataset: Dataset, *, examples: int, pretrained: bool = False) -> TrainConfig:
    """Returns the configuration with every "auto" replaced and with what `evaluate` must know about the data.

    Args:
        config: What the user set.
        dataset: The data that it names.
        examples: Training examples, those for validation taken off.
        pretrained: Whether the network begins with weights.

    Raises:
        ValueError: If the batch is larger than the training examples.
    """
    choice, config = _choice(dataset, examples), by_number_of_examples(config, examples)
    batch_size = _either(config.batch_size, choice.batch_size)
    if config.batch_share is not None:
        batch_size = min(batch_size, max(1, int(config.batch_share * examples)))
    if batch_size > examples:
        raise ValueError(
            f"TrainConfig: `batch_size` must be at most the number of training examples, {examples}, "
            f"but received {batch_size} (int)."
        )
    if batch_size % config.split_batch:
        raise bad_argument("TrainConfig", "split_batch", f"a divisor of batch_size, {batch_size}", config.split_batch)
    pictures = dataset.kind == "pictures"
    values: dict[str, Any] = config.to_dict()
    steps = examples // batch_size
    usual = min(MOST_EPOCHS, max(EPOCHS, -(-LEAST_STEPS // steps))) if pretrained else choice.epochs
    epochs = _either(config.epochs, usual) if config.steps is None else max(1, round(config.steps / steps))
    values["epochs"] = epochs
    values["finetune"]["head_epochs"] = _either(config.finetune.head_epochs, min(max(1, round(epochs / 5)), epochs - 1))
    few = pretrained and (examples < FEW_PICTURES or batch_size < FEW_IN_A_BATCH)
    values["finetune"]["batch_norm"] = _either(config.finetune.batch_norm, "frozen" if few else "trained")
    values["batch_size"] = batch_size
    values["data"] |= {"task": dataset.task, "classes": dataset.classes, "features": dataset.features}
    values["model"]["name"] = _either(config.model.name, MODELS.get(dataset.kind))
    values["model"]["drop_path_rate"] = _either(config.model.drop_path_rate, choice.drop_path_rate)
    values["optimizer"]["learning_rate"] = _either(
        config.optimizer.learning_rate, FINETUNED if pretrained else LEARNING_RATE.get(dataset.kind, FINETUNED)
    )
    values["optimizer"]["weight_decay"] = _either(config.optimizer.weight_decay, choice.weight_decay)
    if pictures:
        side = min(dataset.input_shape[:2])
        values["augment"]["shift"] = _either(config.augment.shift, min(side - 1, max(1, side // 8)))
        values["augment"]["flip"] = _either(config.augment.flip, dataset.name in MIRRORED)
    else:
        values["augment"] = {"shift": 0, "flip": False}
    values["loss"]["class_weights"] = _class_weights(config.loss.class_weights, dataset)
    return config.parse(values)


def usual_size(config: TrainConfig, weights: Pretrained | None = None) -> tuple[int, int, str] | None:
    """Returns the height and width of pictures that a network has been made for, and why.

    They are those of the weights that it begins with, or the usual ones of its family; None for a network that is made
    for any.

    Args:
        config: Names the network.
        weights: What it begins with; None for random ones.
    """
    name = config.model.name
    if weights is not None and weights.scaled is not None:
        return weights.scaled, weights.scaled, f"what the weights {printable(config.model.weights or name)} expect"
    architecture = name.partition(".")[0]
    # A name that is none is refused where the network is made.
    if name in MODELS.values() or architecture not in CATALOG:
        return None
    shape, _ = usual_input(architecture)
    return (shape[0], shape[1], f"the usual size of {architecture}") if len(shape) == 3 else None


def by_number_of_examples(config: TrainConfig, examples: int) -> TrainConfig:
    """Returns a configuration with what its recipe has for so many examples, where nothing else is set."""
    rules = RECIPES[config.recipe].by_examples if config.recipe else ()
    settings = next((settings for most, settings in rules if most is None or examples < most), {})
    return config.updated({key: value for key, value in settings.items() if not is_set(config, key)})


def is_set(config: TrainConfig, key: str) -> bool:
    """Returns whether a setting, by its dotted key, was given."""
    section, _, name = key.rpartition(".")
    owner = getattr(config, section) if section else config
    return name in owner.model_fields_set


def _class_weights(wanted: tuple[str, ...], dataset: Dataset) -> list[str]:
    """Returns `NAME=WEIGHT` for every class in their order, nothing where no weights are wanted."""
    if not wanted:
        return []
    owner, name = "TrainConfig", "loss.class_weights"
    if not dataset.classes:
        raise bad_argument(owner, name, "left out where the target is a number", list(wanted))
    if wanted == ("balanced",):
        counts = np.bincount(dataset.y_train, minlength=len(dataset.classes))
        # A class without training examples has none to weigh.
        found = len(dataset.y_train) / (len(counts) * np.maximum(counts, 1))
        return [f"{label}={weight:.6g}" for label, weight in zip(dataset.classes, found, strict=True)]
    weights = dict.fromkeys(dataset.classes, "1")
    for pair in wanted:
        label, _, weight = pair.rpartition("=")
        if label not in weights:
            raise unknown_name(owner, name, label or pair, dataset.classes)
        try:
            right = 0 < float(weight) < float("inf")
        except ValueError:
            right = False
        if not right:
            raise bad_argument(owner, name, "'balanced', or NAME=NUMBER with numbers above 0", pair)
        weights[label] = weight
    return [f"{label}={weight}" for label, weight in weights.items()]


def _choice(dataset: Dataset, examples: int) -> Choice:
    if dataset.name in CHOICES:
        return CHOICES[dataset.name]
    # About 1,500 steps: enough for a small net to learn; at least 10 passes over anything, at most 100 over little.
    batch_size = next((size for size in (128, 64, 32) if examples >= 20 * size), min(16, max(1, examples // 4)))
    return Choice(min(100, max(10, round(1500 * batch_size / examples))), batch_size)


def _either(setting: Any, otherwise: Any) -> Any:
    return otherwise if setting == "auto" else setting
