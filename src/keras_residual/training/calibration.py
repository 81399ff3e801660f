"""Rows of the user's data on which an int8 model is calibrated."""

from __future__ import annotations

import numpy as np

from keras_residual.data import load_dataset
from keras_residual.training.saved import Saved

MOST_ROWS = 512
"""More hardly change the ranges that are found, and each is run through the model in float."""


def calibration_rows(saved: Saved, source: str | None = None, *, target: str | None = None) -> np.ndarray:
    """Returns rows of the training part of some data, drawn by a seed, as the model takes them.

    Args:
        saved: The model.
        source: As in `load_dataset`; None is what the run was trained on.
        target: Column that is not an input, where it is called differently from that of the run.

    Raises:
        ValueError: If no data is named and the model is not that of a run, or the data does not fit the model.
    """
    settings = saved.data
    if source is None and saved.config is None:
        raise ValueError("The model does not say what it was trained on. Name data to calibrate on: --calibrate DATA.")
    height, width, channels = saved.shape if len(saved.shape) == 3 else (0, 0, 0)
    dataset = load_dataset(
        source or settings.source,
        target=target or settings.target,
        task=settings.task,
        image_shape=(height, width, channels) if channels else None,
        test_fraction=settings.test_fraction,
        seed=saved.config.seed if saved.config else 0,
        classes=settings.classes or None,
        features=settings.features or None,
        memory=2**20 * settings.memory,
        most_broken=settings.most_broken,
    )
    if dataset.input_shape != saved.shape:
        raise ValueError(f"The model takes inputs {saved.shape}, but {dataset.name} has inputs {dataset.input_shape}.")
    rows = dataset.x_train if len(dataset.x_train) else dataset.x_test
    order = np.random.default_rng(0).permutation(len(rows))[:MOST_ROWS]
    return rows[np.sort(order)]
