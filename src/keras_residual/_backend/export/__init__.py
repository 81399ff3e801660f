"""Exported files, made and run by the framework of each: that of the file, which need not be the one Keras runs on."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType, ModuleType

from keras_residual._optional import check_installed

EXPORTERS: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "program": ("torch", ("torch",)),
        "graph": ("tensorflow", ("tensorflow",)),
        "saved_model": ("tensorflow", ("tensorflow", "jax")),
    }
)
"""What exported files are made from: the framework that makes it, and the backends whose models it takes."""


def exporter(kind: str) -> ModuleType:
    """Returns the module of this folder that makes exported files of a kind of `EXPORTERS`, and runs them.

    Raises:
        ImportError: If its framework is not installed; says how to install it.
    """
    framework, _ = EXPORTERS[kind]
    check_installed(framework, extra=framework)
    return importlib.import_module(f"{__name__}.{framework}")
