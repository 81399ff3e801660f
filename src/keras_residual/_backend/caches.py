"""Which backend has a cache of compiled programs that outlives the process."""

from __future__ import annotations

from types import ModuleType

import keras


def compilation_cache() -> ModuleType | None:
    """Returns the module that sets the cache of the backend, or None where it has none."""
    if keras.backend.backend() != "jax":
        return None
    from keras_residual._backend import jax_compilation_cache

    return jax_compilation_cache
