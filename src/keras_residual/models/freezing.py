"""Freezing of the first stages of a network, for fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_residual._errors import bad_argument


@dataclass(frozen=True, slots=True)
class Frozen:
    """The result of `freeze`: which layers are frozen, and which remain trainable.

    Args:
        frozen: Names of the layers whose weights training does not change.
        trainable: Names of the layers whose weights it changes.
        frozen_weights: Number of weights of the former, including the statistics of norms.
        trainable_weights: Number of weights that training changes.
    """

    frozen: tuple[str, ...]
    trainable: tuple[str, ...]
    frozen_weights: int
    trainable_weights: int

    def __str__(self) -> str:
        """Returns a line for a person."""
        return (
            f"frozen: {', '.join(self.frozen) or 'nothing'} ({self.frozen_weights:,} weights); "
            f"trainable: {', '.join(self.trainable) or 'nothing'} ({self.trainable_weights:,} weights)"
        )


def freeze(model: keras.Model, up_to: str) -> Frozen:
    """Freezes the stem and the stages up to a given one; their batch norms keep their statistics.

    Layers after it become trainable, so a second call with an earlier stage thaws. Compile the model afterwards:
    Keras notices a change of `trainable` only then.

    Args:
        model: A model of `create_model`, `ResNet` or `ResNetV2`; it is modified in place.
        up_to: `"stem"`, `"stage1"`, …, the last part to freeze, or `"none"` to thaw everything.

    Returns:
        Which layers are frozen and which are trainable; it can be printed.

    Raises:
        ValueError: If the model has no such part.

    Example:
        >>> model = kr.create_model("cifar_resnet20", input_shape=(32, 32, 3), num_classes=10)
        >>> freeze(model, "stage2").trainable
        ('stage3_block1', 'stage3_blocks', 'head')
    """
    found = parts(model)
    names = ["none", *(part for part in found if part != "head")]
    if up_to not in names:
        raise bad_argument("freeze", "up_to", f"one of {', '.join(names)} for {model.name!r}", up_to)
    frozen_parts = set(names[1 : names.index(up_to) + 1])
    for part, layers in found.items():
        for layer in layers:
            layer.trainable = part not in frozen_parts
    with_weights = [layer for layer in model.layers if layer.weights]
    frozen = [layer for layer in with_weights if not layer.trainable]
    trainable = [layer for layer in with_weights if layer.trainable]
    return Frozen(
        tuple(layer.name for layer in frozen),
        tuple(layer.name for layer in trainable),
        _count(weight for layer in frozen for weight in layer.weights),
        _count(model.trainable_variables),
    )


def parts(model: keras.Model) -> dict[str, list[keras.Layer]]:
    """Returns the layers of a network by the part that they are in, from `"stem"` over the stages to `"head"`.

    Args:
        model: Of `create_model`, `ResNet` or `ResNetV2`.
    """
    found: dict[str, list[keras.Layer]] = {}
    for layer in model.layers:
        part = _part(layer)
        if part is not None:
            found.setdefault(part, []).append(layer)
    return found


def freeze_batch_norms(model: keras.Model) -> int:
    """Makes the batch norms of a model unchangeable, so that they keep to the statistics that they have.

    Returns:
        How many there are. Those of a scanned stack are not among them: they are no layers of their own.
    """
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.trainable = False
    return len(norms)


def _part(layer: keras.Layer) -> str | None:
    """Returns the part of a network that a layer is in: the stem, a stage, or the head; None for the input."""
    if isinstance(layer, keras.layers.InputLayer):
        return None
    part = layer.name.partition("_")[0]
    return part if part == "stem" or part.startswith("stage") else "head"


def _count(variables: Any) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)
