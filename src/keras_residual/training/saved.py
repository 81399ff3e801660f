"""What a finished run left, read back: the model, what it was trained on, its answers to new inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_residual._errors import listed, printable, shown
from keras_residual.data import Fingerprint, PaddedBatches
from keras_residual.data.lazy import Inputs, LazyExamples
from keras_residual.deploy.exported import Exported, is_exported, load_exported
from keras_residual.models.keras_file import load_keras_model
from keras_residual.training.assemble import take_apart
from keras_residual.training.config import DataConfig, TrainConfig
from keras_residual.training.config_file import digest_of_data, read_config
from keras_residual.training.run_directory import RunDirectory

_EXPORTED_ROWS = 4096
"""Rows that go to an exported model at a time, so that no more of lazy ones are in memory."""


class NoAnswerError(ValueError):
    """The model gave something that is no answer; the text says what."""

    explained = True


@dataclass(frozen=True)
class Saved:
    """A model and, if it is that of a run, the run's configuration and what it was trained on.

    Args:
        path: The model's file.
        model: From raw inputs to logits or probabilities, or to a number: of Keras, or an `Exported` one.
        config: None for a model that lies somewhere else.
        trained_on: The examples of its training and those that chose its best epoch; None where they are not known.
    """

    path: Path
    model: Any
    config: TrainConfig | None
    trained_on: Fingerprint | None = None

    @property
    def mirrored(self) -> bool:
        """Whether its answer to a picture is the mean of those to it and to its mirror image."""
        return self.config is not None and self.config.augment.test_flip

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one raw input: `(height, width, channels)` or `(features,)`."""
        return tuple(self.model.input_shape[1:])

    @property
    def outputs(self) -> int:
        """Outputs for an example."""
        return self.model.output_shape[-1]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the outputs; numbers where nobody knows them, `()` for one output."""
        if self.config is not None:
            return self.config.data.classes
        return self.data.classes or tuple(str(index) for index in range(self.outputs)) if self.outputs > 1 else ()

    @property
    def data(self) -> DataConfig:
        """What is known of the data: what the run was trained on, or the names that an exported model holds."""
        if self.config is not None:
            return self.config.data
        if not isinstance(self.model, Exported):
            return DataConfig()
        return DataConfig(classes=tuple(self.model.labels or ()), features=tuple(self.model.features or ()))


def load_saved(path: str | Path, *, exported: bool = False, any_kind: bool = False) -> Saved:
    """Reads a run directory, or a model's file with the configuration beside it if there is one.

    Args:
        path: The run directory, or a `.keras` file.
        exported: Whether it may be an exported model too.
        any_kind: Whether the model may take and give something else than pictures, table rows and a row of outputs.

    Raises:
        FileNotFoundError: If there is no such thing.
        ImportError: If the runtime of an exported model is not installed.
        ValueError: If it is no model of pictures or of table rows, or not the one that the configuration speaks of.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no run directory or model {shown(str(path))}.")
    is_export = exported and is_exported(path)
    run = RunDirectory(path if path.is_dir() and not is_export else path.parent)
    file = run.model if path.is_dir() and not is_export else path
    if not is_export and not file.is_file():
        raise FileNotFoundError(
            f"{shown(str(path))} holds no model.keras, so it is no run directory or its first epoch was not finished."
        )
    config = read_config(run.config) if run.config.is_file() else None
    trained_on = Fingerprint.read(run.trained_on) if config is not None and run.trained_on.is_file() else None
    if config is not None and trained_on is not None and trained_on.run not in (None, digest_of_data(config)):
        raise ValueError(
            f"{printable(run.trained_on)} is not the record of {run.config.name} beside it: one of them is another "
            "run's, or the data, classes, features or seed in the configuration were changed after the training. Put "
            "both back as the run wrote them; other data is named in the call."
        )
    saved = Saved(file, load_exported(file) if is_export else load_keras_model(file), config, trained_on)
    if not any_kind:
        _check(saved)
    return saved


def raw_outputs(
    model: Any, x: Inputs, *, path: Path | None = None, batch_size: int = 256, mirrored: bool = False
) -> np.ndarray:
    """Returns logits or probabilities `(examples, classes)` as float32, or numbers `(examples, 1)` as float64.

    Args:
        model: From raw inputs to logits, probabilities or numbers.
        x: Raw inputs of shape `(examples, ...)`, of any number of examples: batches are filled up to one shape.
        path: Where the model comes from, for the message.
        batch_size: Examples per step.
        mirrored: Whether outputs are the mean of those for a picture and for its mirror image.

    Raises:
        NoAnswerError: If there are outputs that are no finite numbers.
    """
    if mirrored and x.ndim == 4:
        both = [raw_outputs(model, each, path=path, batch_size=batch_size) for each in (x, _mirrored(x))]
        return np.mean(both, axis=0, dtype=both[0].dtype)
    parts = take_apart(model)
    if isinstance(model, Exported):
        step = batch_size * -(-_EXPORTED_ROWS // batch_size)
        pieces = (x[start : start + step] for start in range(0, len(x), step))
        outputs = np.concatenate([model.predict(piece, min(batch_size, len(x))) for piece in pieces]).astype(np.float32)
    else:
        batches = PaddedBatches(parts.inputs(x), np.zeros(len(x)), min(batch_size, len(x)))
        quiet: Any = 0  # annotated as text, documented as a number
        outputs = np.asarray(parts.network.predict(batches, verbose=quiet), np.float32)[: len(x)]
    wrong = np.flatnonzero(~np.isfinite(outputs).all(axis=-1))
    if len(wrong):
        raise NoAnswerError(
            f"{printable(path) if path else 'The model'} gives no finite numbers for {len(wrong)} of {len(x)} "
            f"examples, the first of which is number {wrong[0] + 1}. Its weights are damaged, or these examples are "
            f"nothing like those that it was trained on."
        )
    return outputs if outputs.shape[-1] > 1 else parts.answers(outputs)


def _mirrored(x: Inputs) -> Inputs:
    turn = lambda pictures: pictures[:, :, ::-1]  # noqa: E731
    return x.map(turn, x.dtype) if isinstance(x, LazyExamples) else turn(x)


def _check(saved: Saved) -> None:
    model, file = saved.model, printable(saved.path)
    shapes = [tuple(tensor.shape) for tensor in getattr(model, "inputs", None) or ()]
    if len(shapes) != 1 or len(shapes[0]) not in (2, 4) or None in shapes[0][1:]:
        raise ValueError(
            f"{file}: the model must take pictures (height, width, channels) or table rows (features,) of a fixed "
            f"shape, but its inputs are {listed(shapes)}."
        )
    outputs = model.output_shape
    if not isinstance(outputs, tuple) or len(outputs) != 2 or not isinstance(outputs[-1], int):
        raise ValueError(
            f"{file}: the model must give a row of outputs for an example, of shape (batch, outputs), but gives "
            f"{shown(outputs)}."
        )
    if saved.config is None:
        return
    data = saved.config.data
    told = (len(data.classes) or 1, len(data.features) or None)
    found = (saved.outputs, saved.shape[0] if len(saved.shape) == 1 else None)
    if told != found:
        names = (f"{told[0]} {'classes' if data.classes else 'target'}", f"{found[0]} outputs")
        if told[0] == found[0]:
            names = tuple(f"{count} columns" if count else "pictures" for count in (told[1], found[1]))
        raise ValueError(
            f"{file} is not the model of the configuration beside it, which speaks of {names[0]}, while the model has "
            f"{names[1]}. Name the run directory as it was written, or the model in a folder of its own."
        )
