"""What an extra brings: the module, or an ImportError with the line that installs it."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from keras_residual._errors import missing_package


def require(module: str, *, extra: str) -> ModuleType:
    """Returns the imported module.

    Args:
        module: Dotted name, for example `"matplotlib.pyplot"`.
        extra: The extra of `keras-residual` that brings it.

    Raises:
        ImportError: If the package that holds the module is not installed; names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise missing_package(package, extra=extra) from None


def check_installed(module: str, *, extra: str) -> None:
    """Raises the ImportError of `require` without the time that an import takes; `module` has no dots."""
    if importlib.util.find_spec(module) is None:
        raise missing_package(module, extra=extra)
