"""The page in a browser: nothing from the network, no complaints, and a click marks a block everywhere."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from browser import opened
from keras_residual.xray.report import XrayReport
from xray.page.reports import in_stages, of_everything, report, vanishing

pytestmark = pytest.mark.any_backend

COLOURS = "canvas => { const c = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(found: XrayReport, earlier: XrayReport | None = None) -> Path:
        found.to_html(tmp_path / "page.html", earlier)
        return tmp_path / "page.html"

    return write


def draw_all(page: Any) -> int:
    """Scrolls through all pictures, so that each is drawn, and returns how many there are."""
    figures = page.locator("figure")
    for index in range(figures.count()):
        figures.nth(index).scroll_into_view_if_needed()
        page.wait_for_selector(f"figure[data-picture={figures.nth(index).get_attribute('data-picture')}][data-drawn]")
    return figures.count()


def pixels(page: Any) -> list[str]:
    """Returns what each drawn picture looks like."""
    return page.eval_on_selector_all("figure canvas", "all => all.map(canvas => canvas.toDataURL())")


def details(page: Any) -> str:
    return page.locator(".details").inner_text()


def test_a_click_on_a_block_shows_its_numbers_and_marks_it_in_every_picture(browser: Any, written: Any) -> None:
    with opened(browser, written(vanishing())) as page:
        assert draw_all(page) == 4
        assert "block_0" in details(page)
        assert "fades out before it reaches the first blocks" in details(page)
        before = pixels(page)
        page.get_by_role("button", name="block 5, block_4: affected").click()
        assert "Block 5 of 12" in details(page)
        assert "1e-7" in details(page)
        assert page.locator(".block[aria-current]").get_attribute("data-index") == "4"
        page.wait_for_timeout(200)
        after = pixels(page)
        assert len(before) == len(after) == 4
        assert all(one != other for one, other in zip(before, after, strict=True))


def test_a_click_in_a_picture_picks_the_block_there(browser: Any, written: Any) -> None:
    with opened(browser, written(in_stages())) as page:
        draw_all(page)
        canvas = page.locator("figure[data-picture=variance] canvas")
        box = canvas.bounding_box()
        canvas.click(position={"x": box["width"] - 15, "y": 80})
        assert "Block 12 of 12" in details(page)
        canvas.hover(position={"x": box["width"] - 15, "y": 80})
        page.wait_for_selector("#vg-tooltip-element.visible")
        assert "12: block_11" in page.locator("#vg-tooltip-element").inner_text()


def test_blocks_are_reached_by_key_and_from_advice(browser: Any, written: Any) -> None:
    with opened(browser, written(in_stages())) as page:
        page.locator(".advice .to-block").click()
        assert "Block 6 of 12" in details(page)
        assert "ill" in details(page)
        page.locator(".block[aria-current]").focus()
        page.keyboard.press("ArrowRight")
        assert "Block 7 of 12" in details(page)
        page.keyboard.press("Home")
        page.keyboard.press("ArrowLeft")
        assert "Block 1 of 12" in details(page)
        page.keyboard.press("End")
        assert "Block 12 of 12" in details(page)
        assert page.evaluate("document.activeElement.dataset.index") == "11"


def test_chapters_close_and_the_table_of_all_numbers_opens(browser: Any, written: Any) -> None:
    with opened(browser, written(in_stages())) as page:
        first = page.locator(".chapter").first
        figure = first.locator("figure").first
        assert figure.is_visible()
        first.locator("summary").click()
        assert not figure.is_visible()
        page.locator(".numbers summary").click()
        rows = page.locator(".numbers tbody tr")
        rows.nth(11).wait_for()
        assert rows.count() == 12
        assert "✕" in rows.nth(5).inner_text()
        rows.nth(8).click()
        assert "Block 9 of 12" in details(page)


@pytest.mark.parametrize("dark", [False, True])
def test_everything_that_can_be_measured_is_drawn(browser: Any, written: Any, dark: bool) -> None:
    with opened(browser, written(of_everything(), of_everything()), dark=dark) as page:
        assert draw_all(page) > 18
        for canvas in page.locator("figure canvas").all():
            some = COLOURS + "return new Set(c.filter((_, i) => i % 4 === 3)).size > 1 }"
            assert canvas.evaluate(some), "an empty picture"
        bright = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert bright is not dark


def test_pictures_follow_the_reader_into_the_dark(browser: Any, written: Any) -> None:
    with opened(browser, written(report())) as page:
        draw_all(page)
        before = pixels(page)
        page.emulate_media(color_scheme="dark")
        page.wait_for_timeout(500)
        assert not set(before) & set(pixels(page))


@pytest.mark.parametrize("width", [320, 768])
def test_a_narrow_screen_needs_no_scrolling_to_the_side(browser: Any, written: Any, width: int) -> None:
    with opened(browser, written(in_stages()), width=width) as page:
        draw_all(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        bar = page.locator(".bar")
        assert bar.is_visible()
        bar.get_by_role("button", name="the block behind").click()
        assert "block 7" in bar.inner_text()


def test_a_thousand_blocks_open_quickly(browser: Any, written: Any) -> None:
    deep = report(1000, variance=[1.0 + i for i in range(1000)], dead_units=[0.0] * 999 + [0.5])
    path = written(deep, deep)
    assert path.stat().st_size < 3_000_000
    start = time.perf_counter()
    with opened(browser, path) as page:
        page.wait_for_selector("figure[data-drawn]")
        assert time.perf_counter() - start < 5
        page.locator(".block").nth(499).click()
        assert "Block 500 of 1000" in details(page)
        draw_all(page)


def test_numbers_that_are_none_are_no_obstacle(browser: Any, written: Any) -> None:
    nan, inf = float("nan"), float("inf")
    broken = report(gradient_norm=[0.0, None, nan, inf], variance=[nan] * 4, nan=[0.0, 0.5, 1.0, 1.0])
    with opened(browser, written(broken)) as page:
        draw_all(page)
        page.locator(".block").nth(2).click()
        assert "not a number" in details(page)


def test_what_blocks_are_called_is_shown_and_not_run(browser: Any, written: Any) -> None:
    name = "</script><img src=x onerror='window.hurt = 1'>"
    with opened(browser, written(report(name=[name, "b", "c", "d"], dead_units=[0.5, 0, 0, 0]))) as page:
        draw_all(page)
        assert name in details(page)
        page.locator("figure canvas").first.hover()
        page.locator(".numbers summary").click()
        assert page.evaluate("window.hurt") is None


def test_an_empty_report_is_a_page(browser: Any, written: Any) -> None:
    with opened(browser, written(XrayReport([], {}))) as page:
        assert "nothing to see" in page.locator("main").inner_text()
