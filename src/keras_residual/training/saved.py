"""What a finished run left, read back: the model, what it was trained on, its answers to new inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_residual.data import Batches
from keras_residual.models.keras_file import load_keras_model
from keras_residual.training.config import TrainConfig
from keras_residual.training.config_file import read_config


@dataclass(frozen=True)
class Saved:
    """A model and, if it is that of a run, the run's configuration.

    Args:
        path: The model's file.
        model: From raw inputs to logits, or to a number.
        config: None for a model that lies somewhere else.
    """

    path: Path
    model: keras.Model
    config: TrainConfig | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one raw input: `(height, width, channels)` or `(features,)`."""
        return tuple(self.model.input_shape[1:])

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits; numbers where nobody knows them, `()` for one output."""
        if self.config is not None:
            return self.config.data.classes
        outputs = self.model.output_shape[-1]
        return tuple(str(index) for index in range(outputs)) if outputs > 1 else ()


def load_saved(path: str | Path) -> Saved:
    """Reads a run directory, or a `.keras` file with the configuration beside it if there is one.

    Raises:
        FileNotFoundError: If there is no such thing.
        ValueError: If it is no model of pictures or of table rows.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no run directory or model {str(path)!r}.")
    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"{str(path)!r} holds no model.keras, so it is no run directory or its first epoch was not finished."
        )
    config_file = file.parent / "config.toml"
    saved = Saved(file, load_keras_model(file), read_config(config_file) if config_file.is_file() else None)
    if len(saved.model.inputs) != 1 or len(saved.shape) not in (1, 3) or None in saved.shape:
        raise ValueError(
            f"{file}: the model must take pictures (height, width, channels) or table rows (features,) of a fixed "
            f"shape, but its inputs are {[tuple(tensor.shape) for tensor in saved.model.inputs]}."
        )
    return saved


def raw_outputs(model: keras.Model, x: np.ndarray, *, batch_size: int = 256) -> np.ndarray:
    """Returns logits `(examples, classes)` or numbers `(examples, 1)` as float32.

    Args:
        model: From raw inputs to logits or numbers.
        x: Raw inputs of shape `(examples, ...)`, of any number of examples: batches are filled up to one shape.
        batch_size: Examples per step.
    """
    batches = Batches(x, np.zeros(len(x)), min(batch_size, len(x)), training=False)
    quiet: Any = 0  # annotated as text, documented as a number
    return np.asarray(model.predict(batches, verbose=quiet), np.float32)[: len(x)]
