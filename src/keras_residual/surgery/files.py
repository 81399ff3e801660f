"""Models from files, with what they were compiled with where that can be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

import keras_residual.stacks.stack  # noqa: F401 - registers the layers that a saved model may be made of


def load(path: Path) -> Any:
    """Reads a `.keras` file in Keras's safe mode.

    Raises:
        ValueError: If it is no model, or needs code that is not there.
    """
    try:
        return keras.saving.load_model(path, safe_mode=True)
    except Exception:
        # A loss or metric of the user's own; the layers may be Keras's all the same.
        try:
            return keras.saving.load_model(path, compile=False, safe_mode=True)
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"{path} cannot be read as a Keras model: {reason}") from error
