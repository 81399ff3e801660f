"""The pages that are made from the catalogue are as `tools/model_pages.py` makes them now."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from keras_residual.models.catalog import CATALOG
from keras_residual.models.catalog.aliases import ALIASES

pytestmark = pytest.mark.any_backend
ROOT = Path(__file__).parents[2]
PAGES = runpy.run_path(str(ROOT / "tools" / "model_pages.py"))["pages"]()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_up_to_date(page: Path) -> None:
    made = PAGES[page]
    assert page.read_text(encoding="utf-8") == made, "run tools/model_pages.py"


def test_every_name_is_on_its_page() -> None:
    texts = {page.name: text for page, text in PAGES.items()}
    assert [name for name in CATALOG if f"| `{name}` |" not in texts["models.md"]] == []
    assert [name for name in ALIASES if f"| `{name}` |" not in texts["migrating.md"]] == []
