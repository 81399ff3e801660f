"""Makes `docs/images/xray.png`, the picture of an X-ray's page in `docs/xray.md`.

.venv/bin/python tools/xray_picture.py

It runs the code that is on that page, and photographs what it writes. It needs Chromium.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "xray.md"
PICTURE = ROOT / "docs" / "images" / "xray.png"

sys.path.insert(0, str(ROOT / "tests"))
from browser import OPTIONS, chromium, opened  # noqa: E402 - the tests open pages in the same way


def main() -> None:
    """Writes the picture."""
    from playwright.sync_api import sync_playwright

    (code,) = re.findall(r"^```python\n([^`]*to_html\(\"xray\.html\"\)\n)```", PAGE.read_text("utf-8"), re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        subprocess.run(
            [sys.executable, "-c", code], cwd=folder, env={"KERAS_BACKEND": "torch", **os.environ}, check=True
        )
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(OPTIONS))
        with opened(browser, Path(folder) / "xray.html", width=1200) as page:
            page.locator("figure").first.scroll_into_view_if_needed()
            page.wait_for_selector("figure[data-drawn]")
            page.evaluate("scrollTo(0, 0)")
            page.set_viewport_size({"width": 1200, "height": 1500})
            page.wait_for_timeout(500)
            page.screenshot(path=str(PICTURE))
        browser.close()


if __name__ == "__main__":
    main()
