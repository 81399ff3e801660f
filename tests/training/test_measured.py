"""The tables of the training page are those of the results of the benchmarks."""

import importlib.util
import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_backend
ROOT = Path(__file__).parents[2]


@pytest.mark.every
@pytest.mark.parametrize(("name", "part"), [("cifar_reference", "reference"), ("augment", "augmentation")])
def test_a_table_is_that_of_its_results(name, part):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    results = ROOT / "benchmarks" / "results" / f"{name}.json"
    rows = json.loads(results.read_text(encoding="utf-8"))["rows"] if results.exists() else []
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    _, opening, rest = page.partition(f"<!-- {part}, by benchmarks/{name}.py -->\n")
    assert opening
    shown, closing, _ = rest.partition(f"<!-- end of {part} -->")
    assert closing
    assert shown.strip() == (script.table(rows) if rows else "")
