"""The states of all generators of random numbers that a model, a callback or a user may draw from."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_residual import _backend
from keras_residual._keras import GLOBAL_SEED, get_global_attribute, set_global_attribute


def random_states() -> dict[str, Any]:
    """Returns the states of the generators of the process: the backend's, Keras's, NumPy's and Python's.

    The seeds of layers are variables of their model.
    """
    seed = get_global_attribute(GLOBAL_SEED)
    return {
        "backend": _backend.random_state(),
        "keras": None if seed is None else np.array(keras.ops.convert_to_numpy(seed.state.value)),
        "numpy": np.random.get_state(),  # noqa: NPY002 - the one that others draw from
        "python": random.getstate(),
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Puts the generators into the states that `random_states` returned."""
    _backend.set_random_state(states["backend"])
    if states["keras"] is not None:
        seed = get_global_attribute(GLOBAL_SEED) or keras.random.SeedGenerator(0)
        seed.state.assign(states["keras"])
        set_global_attribute(GLOBAL_SEED, seed)
    np.random.set_state(states["numpy"])  # noqa: NPY002
    random.setstate(states["python"])
