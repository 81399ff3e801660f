"""JAX's own persistent compilation cache: what XLA has compiled is read from a folder by the next process.

JAX has no cache until it is told of a folder. This file can go when it has one by itself
(https://docs.jax.dev/en/latest/persistent_compilation_cache.html).
"""

from __future__ import annotations

import os
from pathlib import Path

import jax.experimental.compilation_cache.compilation_cache
import jaxlib.version

SECONDS = 0.5
"""Programs that took less to compile are not kept. JAX's own default, 1 s, leaves out most layers of a small net."""

_FOLDER = "jax_compilation_cache_dir"
_SECONDS = "jax_persistent_cache_min_compile_time_secs"
_JAXS_SECONDS = 1.0

_seconds_before: float | None = None


def version() -> str:
    """Returns the version of the compiler."""
    return jaxlib.version.__version__


def is_off() -> bool:
    """Returns whether the user has switched JAX's caches off."""
    return not getattr(jax.config, "jax_enable_compilation_cache", True)


def folder() -> str | None:
    """Returns the folder of the cache, whoever has set it."""
    return getattr(jax.config, _FOLDER) or None


def enable(folder: Path) -> None:
    """Makes JAX keep what it compiles in a folder."""
    global _seconds_before
    before = getattr(jax.config, _SECONDS)
    if before == _JAXS_SECONDS and _SECONDS.upper() not in os.environ:
        _seconds_before = before
        jax.config.update(_SECONDS, SECONDS)
    _set(str(folder))


def disable() -> None:
    """Undoes `enable`."""
    global _seconds_before
    if _seconds_before is not None and getattr(jax.config, _SECONDS) == SECONDS:
        jax.config.update(_SECONDS, _seconds_before)
    _seconds_before = None
    _set(None)


def _set(folder: str | None) -> None:
    jax.config.update(_FOLDER, folder)
    # JAX looks at its settings once, when it first compiles, which may have been before.
    jax.experimental.compilation_cache.compilation_cache.reset_cache()
