"""The settings that a configuration leaves to us: by the kind of data, its size, and for the built-in sets by trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_residual.data.dataset import Dataset
    from keras_residual.training.config import TrainConfig

MODELS = {"pictures": "small_resnet", "table": "tabular_resnet"}
LEARNING_RATE = {"pictures": 3e-3, "table": 1e-3}
WEIGHT_DECAY = {"pictures": 0.05, "table": 0.05}

# Pictures that mean the same in a mirror. Digits and letters do not, so nothing else is mirrored unasked.
MIRRORED = frozenset({"cifar10", "cifar100"})


@dataclass(frozen=True)
class Schedule:
    """Passes over the training examples and examples per step."""

    epochs: int
    batch_size: int


SCHEDULES = {
    "digits": Schedule(16, 32),
    "breast_cancer": Schedule(40, 32),
    "wine": Schedule(60, 16),
    "diabetes": Schedule(40, 32),
}


def resolve(config: TrainConfig, dataset: Dataset, *, examples: int) -> TrainConfig:
    """Returns the configuration with every "auto" replaced and with what `evaluate` must know about the data.

    Args:
        config: What the user set.
        dataset: The data that it names.
        examples: Training examples, those for validation taken off.

    Raises:
        ValueError: If the batch is larger than the training examples.
    """
    schedule = _schedule(dataset, examples)
    batch_size = _either(config.batch_size, schedule.batch_size)
    if batch_size > examples:
        raise ValueError(
            f"TrainConfig: `batch_size` must be at most the number of training examples, {examples}, "
            f"but received {batch_size} (int)."
        )
    pictures = dataset.kind == "pictures"
    values: dict[str, Any] = config.to_dict()
    values["epochs"] = _either(config.epochs, schedule.epochs)
    values["batch_size"] = batch_size
    values["data"] |= {"task": dataset.task, "classes": dataset.classes, "features": dataset.features}
    values["model"]["name"] = _either(config.model.name, MODELS[dataset.kind])
    values["optimizer"]["learning_rate"] = _either(config.optimizer.learning_rate, LEARNING_RATE[dataset.kind])
    values["optimizer"]["weight_decay"] = _either(config.optimizer.weight_decay, WEIGHT_DECAY[dataset.kind])
    values["augment"]["shift"] = _either(config.augment.shift, max(1, _side(dataset) // 8)) if pictures else 0
    values["augment"]["flip"] = _either(config.augment.flip, dataset.name in MIRRORED) if pictures else False
    return config.parse(values)


def _schedule(dataset: Dataset, examples: int) -> Schedule:
    if dataset.name in SCHEDULES:
        return SCHEDULES[dataset.name]
    # About 1,500 steps: enough for a small net to learn, at least 10 passes over anything, at most 60 over little.
    batch_size = next((size for size in (128, 64, 32) if examples >= 20 * size), min(16, examples))
    return Schedule(min(60, max(10, round(1500 * batch_size / examples))), batch_size)


def _side(dataset: Dataset) -> int:
    return min(dataset.input_shape[:2])


def _either(setting: Any, otherwise: Any) -> Any:
    return otherwise if setting == "auto" else setting
