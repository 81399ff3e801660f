"""`evaluate`: how well a saved model does on the test part of some data."""

from __future__ import annotations

from pathlib import Path

from keras_residual.data import Dataset, load_dataset
from keras_residual.training.config import DataConfig
from keras_residual.training.saved import Saved, raw_outputs
from keras_residual.training.scores import score


def load_test_data(saved: Saved, source: str | None = None, *, target: str | None = None) -> Dataset:
    """Reads data in the shape, the columns and the order of classes that the model knows.

    Args:
        saved: The model.
        source: As in `load_dataset`; None is what the run was trained on, split as it was then. All of a file counts
            that the model was not trained on.
        target: Column to be predicted, where it is called differently from that of the run.

    Raises:
        ValueError: If no data is named and the model is not that of a run, or the data does not fit the model.
    """
    settings = saved.config.data if saved.config else DataConfig()
    if source is None and saved.config is None:
        raise ValueError(f"{saved.path} does not say what it was trained on. Name the data: evaluate MODEL DATA.")
    # A file that the model has not seen is a test as a whole; one that was split for training is split again.
    foreign = source is not None and source != settings.source and Path(source).is_file()
    height, width, channels = saved.shape if len(saved.shape) == 3 else (0, 0, 0)
    dataset = load_dataset(
        source or settings.source,
        target=target or settings.target,
        task=settings.task,
        image_shape=(height, width, channels) if channels else None,
        test_fraction=1.0 if foreign else settings.test_fraction,
        seed=saved.config.seed if saved.config else 0,
        classes=settings.classes or None,
        features=settings.features or None,
    )
    outputs = saved.model.output_shape[-1]
    if dataset.input_shape != saved.shape or (len(dataset.classes) or 1) != outputs:
        raise ValueError(
            f"{saved.path} takes inputs {saved.shape} and gives {outputs} outputs, but {dataset.name} has inputs "
            f"{dataset.input_shape} and {len(dataset.classes) or 1} {'classes' if dataset.classes else 'target'}."
        )
    return dataset


def evaluate(saved: Saved, dataset: Dataset) -> dict[str, float]:
    """Returns `test_loss`, `test_accuracy` (or `test_rmse` and `test_r2`) and `examples`."""
    outputs = raw_outputs(saved.model, dataset.x_test)
    return {
        **score(outputs, dataset.y_test, classes=len(dataset.classes)),
        "examples": len(dataset.y_test),
    }
