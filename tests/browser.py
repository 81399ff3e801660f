"""Opens a page in a headless Chromium, and fails on whatever a reader would not want: errors and network requests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str | None:
    """Returns where Chromium is: what KERAS_RESIDUAL_CHROMIUM names, else the first that is installed."""
    return os.environ.get("KERAS_RESIDUAL_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Yields a running Chromium; skips where none is installed."""
    program = chromium()
    if program is None:
        pytest.skip("no Chromium is installed, and KERAS_RESIDUAL_CHROMIUM names none")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=list(OPTIONS))
        yield running
        running.close()


@contextmanager
def opened(browser: Any, path: Path, *, width: int = 1280, dark: bool = False) -> Iterator[Any]:
    """Yields the page of a file; at the end it must have asked for nothing else and have had nothing to complain of.

    Args:
        browser: From the fixture.
        path: The file.
        width: Width of the window in pixels.
        dark: Whether the reader prefers a dark page.
    """
    scheme = "dark" if dark else "light"
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(10_000)
    complaints, asked = [], []
    page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    address = path.resolve().as_uri()
    try:
        page.goto(address)
        yield page
        strangers = [url for url in asked if url != address and not url.startswith("data:")]
        if complaints or strangers:
            pytest.fail(f"the page complains: {complaints}, and asks for {strangers}")
    finally:
        context.close()
