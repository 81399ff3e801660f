"""What `tools/test_versions.py` reads and writes."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path

import pytest

import test_versions as tool

pytestmark = pytest.mark.any_backend

PROJECT = {
    "name": "net",
    "dependencies": ["keras>=3.15", "Plain"],
    "optional-dependencies": {"plot": ["draw-it >= 1.8"], "train": ["net[plot]", "pillow[fast]>=10"]},
}


def test_every_direct_dependency_has_its_lower_bound() -> None:
    assert tool.direct(PROJECT) == {"keras": "3.15", "Plain": None, "draw-it": "1.8", "pillow": "10"}


@pytest.mark.parametrize("requirement", ["keras~=3.15", "keras>=3,<4", "keras==3.15"])
def test_a_bound_that_uv_would_not_take_as_the_lowest_is_refused(requirement: str) -> None:
    with pytest.raises(SystemExit, match=r"`keras.*` must be a name alone or NAME>=RELEASE"):
        tool.direct({"name": "net", "dependencies": [requirement]})


def test_every_dependency_of_this_project_is_read() -> None:
    project = tomllib.loads((tool.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = tool.direct(project)
    assert {"keras", "numpy", "jax", "torch", "tensorflow", "openvino", "tensorboardX"} <= set(bounds)
    assert None not in bounds.values()


def test_the_table_has_releases_and_results_of_both_ends(tmp_path: Path) -> None:
    found = {}
    for end, release in (("oldest", "3.15.0"), ("newest", "3.16.2")):
        logs = tmp_path / end / "logs"
        logs.mkdir(parents=True)
        (logs.parent / "releases.txt").write_text(f"python==3.11.7\nkeras=={release}\ndraw-it==1.8\n")
        for backend in tool.BACKENDS:
            cases = '<testcase name="a"/><testcase name="b"/><testcase name="c"><skipped message="x"/></testcase>'
            broken = '<testcase name="d"><failure/></testcase>' if end == "newest" and backend == "jax" else ""
            (logs / f"{backend}.xml").write_text(f"<testsuites>{cases}{broken}</testsuites>")
        found[end] = tool.results(tmp_path / end)
    text = tool.section(found, {"keras": "3.15", "draw-it": "1.8"})
    assert "| keras | 3.15.0 | 3.16.2 |" in text
    assert "| draw-it | 1.8 | 1.8 |" in text
    fine, broken = "2 passed, 0 failed, 1 skipped", "2 passed, 1 failed, 1 skipped"
    assert f"| tests on torch | {fine} | {fine} |" in text
    assert f"| tests on jax | {fine} | {broken} |" in text


def test_an_end_that_has_not_run_has_no_results(tmp_path: Path) -> None:
    assert tool.results(tmp_path / "oldest") == {"releases": {}, "tests": {}}


def test_what_a_backend_said_is_counted() -> None:
    assert tool.summary(Counter(passed=3, skipped=1)) == "3 passed, 0 failed, 1 skipped"


def test_the_tests_that_meet_other_packages_are_there() -> None:
    assert [name for name in tool.TESTS if not (tool.ROOT / name).exists()] == []
