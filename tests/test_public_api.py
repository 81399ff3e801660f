"""What `import keras_residual` offers is what `__all__` says, is documented, and costs nothing that is optional."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import keras
import pytest

import keras_residual as kr
from keras_residual.residual.arguments import NORM_POSITIONS
from keras_residual.residual.merges import MERGES
from keras_residual.residual.norms import NORMS
from keras_residual.residual.scales import NAMED_FACTORS, SCALES
from keras_residual.residual.shortcuts import SHORTCUTS

ROOT = Path(__file__).parents[1]
SCREEN = 170  # lines
OPTIONAL = {
    *("sklearn", "pyarrow", "PIL", "matplotlib", "pydantic", "jinja2", "typer", "tomli_w", "onnx", "pandas"),
    *("safetensors", "huggingface_hub", "tensorboardX"),
    *("onnxruntime", "onnxscript", "openvino", "nncf", "ai_edge_litert"),
}
FRAMEWORKS = {"jax", "torch", "tensorflow"}
# The names of the contract that belong to the layer, the models and training.
PROMISED = [
    *("DropPath", "LayerScale", "Residual", "ResidualStack", "SkipInit", "create_model", "list_models", "train"),
    *("export", "load_exported"),
]
NAMES = [name for name in kr.__all__ if not name.startswith("_")]


@pytest.mark.any_backend
def test_all_is_what_is_visible() -> None:
    own = {
        name
        for name, value in vars(kr).items()
        if not name.startswith("_") and str(getattr(value, "__module__", "")).startswith("keras_residual")
    }
    assert own <= set(kr.__all__)
    assert set(dir(kr)) == set(kr.__all__)
    assert [name for name in kr.__all__ if not hasattr(kr, name)] == []


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
@pytest.mark.parametrize("name", NAMES)
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


@pytest.mark.any_backend
@pytest.mark.parametrize("name", NAMES)
def test_public_object_is_on_an_api_page(name: str) -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    member = r"(\.\w+)+" if isinstance(getattr(kr, name), ModuleType) else ""
    assert re.search(rf"^::: keras_residual\.(\w+\.)*{name}{member}$", pages, flags=re.MULTILINE)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("merges", MERGES),
        ("shortcuts", ["auto", "identity", *SHORTCUTS]),
        ("scales", [*SCALES, *NAMED_FACTORS]),
        ("norms", [*NORMS, *NORM_POSITIONS]),
        ("depth_rules", kr.depth_rules.RULES),
        ("topologies", kr.topologies.TOPOLOGIES),
    ],
)
def test_page_has_every_name_that_the_argument_takes(page: str, names: Iterable[str]) -> None:
    text = (ROOT / "docs" / "api" / f"{page}.md").read_text(encoding="utf-8")
    assert set(re.findall(r'`"(\w+)"`', text)) == set(names)


IMPORT_AND_LISTEN = """
import builtins, json, sys
import keras
before, asked, load = set(sys.modules), set(), builtins.__import__

def listen(name, globals=None, *rest):
    # Keras itself loads some of the optional packages, so what is new does not tell everything.
    if globals and globals["__name__"].partition(".")[0] == "keras_residual":
        asked.add(name.partition(".")[0])
    return load(name, globals, *rest)

builtins.__import__ = listen
import keras_residual
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps([sorted(asked), sorted(new)]))
"""


def test_import_asks_for_nothing_optional_and_no_second_framework() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_AND_LISTEN], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    asked, new = map(set, json.loads(done.stdout.splitlines()[-1]))
    assert "keras" in asked
    assert "keras_residual" in new
    assert asked & (OPTIONAL | FRAMEWORKS) <= {keras.backend.backend()}
    assert not new & (OPTIONAL | FRAMEWORKS)


@pytest.mark.any_backend
def test_version_is_the_newest_of_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(\d[^]]*)\]", changelog, flags=re.MULTILINE)
    assert versions[0] == kr.__version__
