"""What `import keras_residual` offers is what `__all__` says, is documented, and costs nothing that is optional."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import keras_residual as kr

ROOT = Path(__file__).parents[1]
SCREEN = 100  # lines
OPTIONAL = {"sklearn", "pyarrow", "PIL", "matplotlib", "pydantic", "jinja2", "typer", "tomli_w", "onnx", "pandas"}
FRAMEWORKS = {"jax", "torch", "tensorflow"}
# The names of the contract that belong to the layer, the models and training.
PROMISED = ["DropPath", "LayerScale", "Residual", "SkipInit", "create_model", "list_models", "train", "TrainConfig"]


@pytest.mark.any_backend
def test_all_is_what_is_visible() -> None:
    submodules = {name for name, value in vars(kr).items() if isinstance(value, ModuleType)}
    visible = {name for name in dir(kr) if not name.startswith("_")} - submodules
    assert visible == {name for name in kr.__all__ if not name.startswith("_")} - submodules
    assert all(hasattr(kr, name) for name in kr.__all__)


@pytest.mark.any_backend
def test_all_is_on_one_screen_without_repeats() -> None:
    assert len(kr.__all__) == len(set(kr.__all__))  # ruff keeps it sorted: RUF022
    assert len(Path(kr.__file__).read_text(encoding="utf-8").splitlines()) <= SCREEN


@pytest.mark.any_backend
@pytest.mark.parametrize("name", PROMISED)
def test_promised_name_resolves(name: str) -> None:
    assert name in kr.__all__
    assert getattr(kr, name) is not None


@pytest.mark.any_backend
@pytest.mark.parametrize("name", [name for name in kr.__all__ if not name.startswith("_")])
def test_public_object_has_a_one_line_summary(name: str) -> None:
    value = getattr(kr, name)
    assert callable(value) or isinstance(value, ModuleType), f"{name} is {type(value).__name__}"
    documentation = value.__doc__
    assert documentation, f"{name} has no docstring of its own"
    if inspect.isclass(value):
        assert all(documentation != base.__doc__ for base in value.__mro__[1:]), f"{name} inherits its docstring"
    summary, *rest = inspect.cleandoc(documentation).splitlines()
    assert re.search(r"[.:]$", summary), f"the summary of {name} does not end on its first line: {summary!r}"
    assert not rest or not rest[0], f"the summary of {name} runs on into its second line"


def test_import_adds_nothing_optional_and_no_second_framework() -> None:
    program = (
        "import json, sys, keras\n"
        "before = set(sys.modules)\n"
        "import keras_residual\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in set(sys.modules) - before})))"
    )
    done = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    added = set(json.loads(done.stdout.splitlines()[-1]))
    assert "keras_residual" in added
    assert not added & (OPTIONAL | FRAMEWORKS)


@pytest.mark.any_backend
def test_version_is_the_newest_of_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(\d[^]]*)\]", changelog, flags=re.MULTILINE)
    assert versions[0] == kr.__version__
