"""Models that an earlier version saved load and return what they returned then.

`saved/` holds three `.keras` files, written on PyTorch, and their inputs and outputs. They name their classes as this
package registers them, not by module: where a class lives may change, its registered name and its weights may not.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

import keras_residual as kr
from contract import assert_close

SAVED = Path(__file__).parent / "saved"


@pytest.mark.every
@pytest.mark.parametrize("name", ["connection", "stack", "net"])
def test_a_file_saved_by_an_earlier_version_returns_the_same(name: str) -> None:
    model = keras.saving.load_model(SAVED / f"{name}.keras")
    with np.load(SAVED / "outputs.npz") as arrays:
        inputs, expected = arrays[f"{name}_x"], arrays[f"{name}_y"]
    assert_close(model.predict_on_batch(inputs), expected, 1e-5)
    assert any(isinstance(layer, (kr.Residual, kr.ResidualStack)) for layer in model.layers)
