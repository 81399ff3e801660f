"""The loss of a saved model, to look at it with data of ours."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual.models.outputs import ending
from keras_residual.training.saved import Saved
from keras_residual.xray.measure.loss import loss_takes


def loss_for(saved: Saved, x: np.ndarray, *, classes: bool) -> Any:
    """Returns the loss to look at a saved model with, of labels `(batch,)` or of numbers `(batch, 1)`.

    For a run it is that of its training. For another file it is the one with which the model was compiled when it was
    saved: for numbers any, for classes a cross-entropy, of labels where it was one of rows of one 1. Without such a one
    it is the cross-entropy of what the model gives, logits or probabilities, and for numbers the mean squared error.

    Args:
        saved: The model.
        x: A batch of raw inputs.
        classes: Whether the targets are labels.

    Example:
        >>> from pathlib import Path
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
        >>> loss = loss_for(Saved(Path("model.keras"), model, None), np.ones((2, 4), "float32"), classes=True)
        >>> loss.get_config()["from_logits"]
        False
    """
    compiled = None if saved.config is not None else compiled_loss(saved.path)
    if not classes:
        return "mse" if compiled is None else compiled
    kind, takes = loss_takes(compiled)
    if kind == "sparse_categorical_crossentropy":
        return compiled
    if kind == "categorical_crossentropy":
        return keras.losses.SparseCategoricalCrossentropy(from_logits=takes == "logits")
    outputs = ops.convert_to_numpy(ops.cast(saved.model(x, training=False), "float32"))
    logits = saved.config is not None or ending(saved.model, np.asarray(outputs)) == "logits"
    return keras.losses.SparseCategoricalCrossentropy(from_logits=logits)


def compiled_loss(path: Path) -> Any:
    """Returns the loss that a `.keras` file keeps of `compile`; None for none, several, or one that Keras cannot read.

    Args:
        path: The file.
    """
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        if "config.json" not in archive.namelist():
            return None
        config = json.loads(archive.read("config.json"))
    kept = (config.get("compile_config") or {}).get("loss")
    # A function of the user's own, or a class that is not registered, is known to no other program.
    try:
        found = keras.saving.deserialize_keras_object(kept, safe_mode=True) if isinstance(kept, dict) else kept
        return None if isinstance(found, (dict, list, tuple)) or found is None else keras.losses.get(found)
    except (TypeError, ValueError):
        return None
