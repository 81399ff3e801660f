"""The tables of `docs/depth.md` are what `tools/depth_tables.py` makes of the results now."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.any_backend
def test_the_page_is_up_to_date() -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "depth_tables.py"))
    text = (ROOT / "docs" / "depth.md").read_text(encoding="utf-8")
    assert text == tool["page"](text), "run tools/depth_tables.py"
    assert text.count("| `scan`, JAX | 1,") == 4  # ResNet-1202, and a thousand blocks of each kind
