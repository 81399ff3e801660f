"""`evaluate`: how well a saved model does on data that it was not trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from keras_residual._errors import listed, printable, shown
from keras_residual.data import Dataset, load_dataset
from keras_residual.data.dataset import targets_that_do_not_vary
from keras_residual.data.fingerprint import without
from keras_residual.data.sources import takes_target
from keras_residual.models.outputs import as_logits, ending
from keras_residual.training.assemble import Standardised, moments, take_apart
from keras_residual.training.saved import Saved, raw_outputs
from keras_residual.training.scores import score

# Numbers that differ so much from those of the training are likely to have another unit.
_MANY_DEVIATIONS, _OTHER_SPREAD, _ENOUGH_ROWS = 10, 30, 10
_MANY_ROWS = 100_000


def load_test_data(saved: Saved, source: str | None = None, *, target: str | None = None) -> Dataset:
    """Reads data in the shape, the columns and the order of classes that the model knows.

    All that the data has counts as test, or its own test part where it has one, but for the examples that the model was
    trained on or that chose its best epoch. They are known by what they hold, so they may be renamed, reordered, or
    written in another format. The data's `notes` say what was left out, and what else makes a score worth less than it
    seems.

    Args:
        saved: The model.
        source: As in `load_dataset`; None is what the run was trained on.
        target: Column to be predicted; None for that of the run, where the data has columns to choose from.

    Raises:
        ValueError: If no data is named and the model is not that of a run, the data does not fit the model, or the
            model was trained on all of it.
    """
    settings = saved.data
    if source is None and saved.config is None:
        raise ValueError(
            f"{printable(saved.path)} does not say what it was trained on. Name the data: evaluate MODEL DATA."
        )
    source = source or settings.source
    if target is None and takes_target(source):
        target = settings.target
    height, width, channels = saved.shape if len(saved.shape) == 3 else (0, 0, 0)
    dataset = load_dataset(
        source,
        target=target,
        task=settings.task,
        image_shape=(height, width, channels) if channels else None,
        test_fraction=1.0,
        seed=saved.config.seed if saved.config else 0,
        classes=settings.classes or None,
        features=settings.features or None,
        memory=2**20 * settings.memory,
        most_broken=settings.most_broken,
    )
    # One output may be the probability of the second of two classes.
    fits = saved.outputs == (len(dataset.classes) or 1) or (saved.outputs, len(dataset.classes)) == (1, 2)
    if dataset.input_shape != saved.shape or not fits:
        raise ValueError(
            f"{printable(saved.path)} takes inputs {saved.shape} and gives {saved.outputs} outputs, but "
            f"{printable(dataset.name)} has inputs {dataset.input_shape} and {len(dataset.classes) or 1} "
            f"{'classes' if dataset.classes else 'target'}."
        )
    if saved.trained_on is not None:
        dataset = without(dataset, saved.trained_on)
    return replace(dataset, notes=(*dataset.notes, *_doubts(saved, dataset)))


def evaluate(saved: Saved, dataset: Dataset) -> dict[str, float]:
    """Returns what `score` does, and `examples`.

    Raises:
        NoAnswerError: If the model gives no finite numbers.
    """
    outputs = raw_outputs(saved.model, dataset.x_test, path=saved.path, mirrored=saved.mirrored)
    dataset, outputs = dataset.without_gone(outputs)
    if dataset.classes:
        outputs = as_logits(outputs, ending(saved.model, outputs), classes=len(dataset.classes))
    return {
        **score(outputs, dataset.y_test, classes=len(dataset.classes)),
        "examples": len(dataset.y_test),
    }


def _doubts(saved: Saved, dataset: Dataset) -> list[str]:
    """Returns sentences about what makes the score worth less than it seems."""
    doubts = list(targets_that_do_not_vary(dataset))
    if saved.trained_on is None:
        doubts.append("Nothing tells what the model was trained on, so there may be training examples in the test.")
    if not saved.data.classes and dataset.classes:
        doubts.append(
            f"The model does not name its classes; they are taken in the order of the data: {listed(dataset.classes)}."
        )
    missing = (
        np.flatnonzero(np.bincount(dataset.y_test, minlength=len(dataset.classes)) == 0) if dataset.classes else []
    )
    if len(missing):
        names = listed([shown(dataset.classes[index]) for index in missing])
        doubts.append(f"No example in the test is of {'class' if len(missing) == 1 else 'classes'} {names}.")
    known = take_apart(saved.model)
    if known.columns is not None:
        doubts += _other_units(dataset, known, *known.columns)
    return doubts


def _other_units(dataset: Dataset, known: Standardised, means: np.ndarray, deviations: np.ndarray) -> list[str]:
    """Returns a sentence for each column that looks as if it had another unit than in the training."""
    columns = [f"column {shown(name)}" for name in dataset.features]
    rows = np.arange(0, len(dataset.y_test), -(-len(dataset.y_test) // _MANY_ROWS))
    values = dataset.x_test[rows]
    if not dataset.classes:
        columns.append("the target")
        values = np.column_stack([values, dataset.y_test[rows]])
        means, deviations = np.append(means, known.target_mean), np.append(deviations, known.target_scale)
    if len(values) < _ENOUGH_ROWS:
        return []
    here, spread = moments(values)
    varies = np.ptp(values, axis=0) > 0
    ratio = np.where(varies, spread / deviations, 1.0)
    far = np.abs(np.median(values, axis=0) - means) > _MANY_DEVIATIONS * deviations
    other = far | (ratio > _OTHER_SPREAD) | (ratio < 1 / _OTHER_SPREAD)
    return [
        f"In {columns[index]} the values are {here[index]:.4g} ± {spread[index]:.2g}, in the training "
        f"{means[index]:.4g} ± {deviations[index]:.2g}: another unit, or another quantity?"
        for index in np.flatnonzero(other)
    ]
