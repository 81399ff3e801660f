"""An environment in which one backend alone, or none, is installed: the packages of this one, without the others."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from pathlib import Path

BACKENDS = ("jax", "torch", "tensorflow")


def environment(tmp_path: Path, *backends: str) -> dict[str, str]:
    """Returns the variables of a process that has these backends only, and a home folder in which nothing is said.

    The process must be run with `python -S`, so that the packages come from nowhere else.
    """
    packages = tmp_path / "packages"
    if not packages.exists():
        packages.mkdir()
        left_out = {backend for backend in BACKENDS if backend not in backends}
        for name in ("purelib", "platlib"):
            for path in Path(sysconfig.get_path(name)).iterdir():
                if path.name not in left_out and not (packages / path.name).exists():
                    (packages / path.name).symlink_to(path)
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KERAS_", "PYTHON", "VIRTUAL"))}
    ours = Path(importlib.util.find_spec("keras_residual").origin).parents[1]
    return kept | {
        "HOME": str(home),
        "PYTHONPATH": f"{ours}{os.pathsep}{packages}",
        "KERAS_RESIDUAL_COMPILATION_CACHE": "off",
    }


def python(code: str) -> list[str]:
    """Returns the command that runs code in such an environment."""
    return [sys.executable, "-S", "-c", code]
