"""The file: whole, harmless whatever blocks are called, and without anything from elsewhere."""

from __future__ import annotations

import importlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from keras_residual.xray.page.content import Content
from keras_residual.xray.page.render import drawing_library, page, section
from keras_residual.xray.report import XrayReport
from xray.page.reports import report, vanishing

pytestmark = pytest.mark.any_backend

HOSTILE = "</script><img src=x onerror=alert(1)>'\"&{{ 7*7 }}"


class Elements(HTMLParser):
    """Collects elements and addresses, and checks that each element is closed in its turn."""

    VOID = frozenset({"meta", "br", "img", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href") and tag != "a"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.text.append(data)


def test_one_file_with_nothing_from_elsewhere(tmp_path: Path) -> None:
    vanishing().to_html(tmp_path / "page.html")
    elements = Elements((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert elements.addresses == ["data:,"]
    assert elements.tags.count("button") >= 12
    text = " ".join(" ".join(elements.text).split())
    assert "X-ray of net" in text
    assert "1 thing to change" in text
    assert "The learning signal fades out before it reaches the first blocks" in text
    assert "12 layers without a residual connection, 1,234 weights" in text
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_healthy_net_is_told_so() -> None:
    text = str(section(report()))
    assert "Healthy: nothing to change" in text
    assert "What to change" not in text
    Elements(text)


def test_a_net_without_blocks_is_told_so() -> None:
    text = page(XrayReport([], {}))
    assert "There is nothing to see" in text
    Elements(text)


def test_what_blocks_are_called_does_no_harm() -> None:
    found = report(name=["a", HOSTILE, "b", "c"], dead_units=[0.0, 0.9, 0.0, 0.0], model={"name": HOSTILE})
    text = str(section(found))
    elements = Elements(text)
    assert "img" not in elements.tags
    (data,) = re.findall(r'class="xray-data">(.*?)</script>', text)
    assert json.loads(data)["names"][1] == HOSTILE


def test_code_and_papers_in_advice_are_marked_as_such() -> None:
    text = str(section(vanishing()))
    assert "<code>kr.residualize(model)</code>" in text
    assert 'href="https://arxiv.org/abs/1603.05027"' in text
    text = str(section(report(power=[1.0, 1e3, 1e6, 1e9])))
    assert 'href="https://arxiv.org/abs/2010.12859"' in text, "what follows an address is no part of it"


def test_an_existing_file_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page.html").write_text("mine")
    monkeypatch.setattr(Content, "pictures", property(lambda _: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        report().to_html(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == "mine"


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> Any:
        if name == "vl_convert":
            raise ModuleNotFoundError("No module named 'vl_convert'", name="vl_convert")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    drawing_library.cache_clear()
    message = (
        "'vl_convert' is not installed. This feature of keras-residual needs it: pip install 'keras-residual[plot]'"
    )
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        report().to_html(tmp_path / "page.html")
