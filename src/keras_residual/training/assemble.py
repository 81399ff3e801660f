"""The whole model from raw inputs to answers in the data's units, around a network that sees standardised numbers."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np

from keras_residual.data.dataset import Dataset
from keras_residual.models import create_model
from keras_residual.training.config import ModelConfig, settled


@dataclass(frozen=True)
class Assembled:
    """Two models that share their layers.

    Args:
        raw: From raw inputs to logits, or to the target in its own units: what is saved and used.
        learner: From raw inputs to logits, or to the standardised target: what is trained, so that learning does not
            depend on the target's unit.
        target_mean: Mean of the training targets; 0 for classes.
        target_scale: Their standard deviation; 1 for classes.
    """

    raw: keras.Model
    learner: keras.Model
    target_mean: float = 0.0
    target_scale: float = 1.0


def assemble(config: ModelConfig, dataset: Dataset, x: np.ndarray, y: np.ndarray) -> Assembled:
    """Builds the models; `x` and `y` are the training examples, from which the standardisation comes."""
    inputs = keras.Input(shape=x.shape[1:], name="inputs")
    mean, deviation = moments(x)
    standardise = keras.layers.Normalization(axis=-1, mean=mean, variance=deviation**2, name="standardise")
    hidden = standardise(inputs)
    if dataset.kind == "pictures" and keras.config.image_data_format() == "channels_first":
        hidden = keras.layers.Permute((3, 1, 2), name="channels_first")(hidden)
    network = create_model(
        config.name,
        input_shape=tuple(hidden.shape[1:]),
        num_classes=len(dataset.classes) or 1,
        drop_path_rate=settled(config.drop_path_rate),
    )
    outputs = network(hidden)
    # Two models even for classes: only the learner is compiled, so the raw one is saved without an optimizer.
    learner = keras.Model(inputs, outputs)
    if dataset.classes:
        return Assembled(raw=keras.Model(inputs, outputs), learner=learner)
    target_mean, target_scale = float(np.mean(y, dtype=np.float64)), float(np.std(y, dtype=np.float64)) or 1.0
    units = keras.layers.Rescaling(scale=target_scale, offset=target_mean, name="target_units")
    raw = keras.Model(inputs, units(outputs))
    return Assembled(raw=raw, learner=learner, target_mean=target_mean, target_scale=target_scale)


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the last axis; a column without variation is only centred."""
    axes = tuple(range(x.ndim - 1))
    deviation = np.asarray(np.std(x, axis=axes, dtype=np.float64))
    return np.asarray(np.mean(x, axis=axes, dtype=np.float64)), np.where(deviation > 0, deviation, 1.0)
