"""Imports go one way, and one folder alone knows which frameworks Keras can run on."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
DISPATCH = [f"keras_residual/_backend/{name}.py" for name in ("__init__", "choice", "export/__init__")]
FRAMEWORKS = ("jax", "torch", "tensorflow")

pytestmark = pytest.mark.any_backend


def test_import_linter_keeps_its_contracts() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_the_backend_folder_names_a_framework() -> None:
    for path in sorted(SOURCE.rglob("*.py")):
        source, name = path.read_text(encoding="utf-8"), path.relative_to(SOURCE).as_posix()
        match name:
            case _ if name in DISPATCH:
                assert list(framework_names(source, strings=False)) == [], f"{name} imports no framework itself"
            case _ if name.startswith("keras_residual/_backend/"):
                known = {found.split()[1].partition(".")[0] for found in framework_names(source)}
                assert len(known) <= 1, f"{name} knows one framework"
            case "keras_residual_cli/backend.py":
                # Quietens them by name before any of them is imported.
                assert list(framework_names(source, strings=False)) == []
            case _:
                assert list(framework_names(source)) == [], name


def test_one_file_takes_private_names_of_keras() -> None:
    takers = [
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keras.src"))
        or (isinstance(node, ast.Import) and any(alias.name.startswith("keras.src") for alias in node.names))
        or (isinstance(node, ast.Attribute) and ast.unparse(node) == "keras.src")
    ]
    assert set(takers) == {"keras_residual/_keras.py"}


def test_no_two_classes_have_one_name() -> None:
    classes = Counter(
        node.name
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in classes.items() if count > 1] == []


@pytest.mark.parametrize(
    "source",
    [
        "import torch",
        "from jax import numpy",
        "import tensorflow.nn as nn",
        "importlib.import_module('torch')",
        "require('jax.numpy', extra='jax')",
        "keras.backend.backend() == 'tensorflow'",
    ],
)
def test_a_named_framework_is_found(source: str) -> None:
    assert list(framework_names(source))


def test_a_framework_in_prose_is_left_alone() -> None:
    assert list(framework_names('"""Runs on torch."""\nmessage = "Install jax or torch."')) == []


def framework_names(source: str, *, strings: bool = True) -> Iterator[str]:
    """Yields "line: name" for each import of a framework, and each string that is its name or that of its module."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=aliases):
                names = [alias.name for alias in aliases]
            case ast.ImportFrom(module=str(module), level=0):
                names = [module]
            case ast.Constant(value=str(text)) if strings and all(part.isidentifier() for part in text.split(".")):
                names = [text]
            case _:
                continue
        yield from (f"{node.lineno}: {name}" for name in names if name.partition(".")[0] in FRAMEWORKS)
