"""Writes the two X-ray reports of `examples/residualize_digits.py` into `docs/surgery.md`.

.venv/bin/python tools/surgery_reports.py

It runs the example, and leaves rows out of the middle of the tables.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "surgery.md"
EXAMPLE = ROOT / "examples" / "residualize_digits.py"
BEGIN, END = "<!-- reports, by tools/surgery_reports.py -->\n", "<!-- end of reports -->"
ROWS = 5
"""Rows of a table that are kept at each end."""


def main() -> None:
    """Writes the page."""
    command = [sys.executable, str(EXAMPLE)]
    told = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True).stdout
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), told), encoding="utf-8")


def page(text: str, told: str) -> str:
    """Returns the page with the reports that the example printed.

    Args:
        text: The page as it is.
        told: What the example printed.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{PAGE} lacks {BEGIN!r} or {END!r}.")
    blocks = [f"```text\n{shortened(report)}\n```\n" for report in reports(told)]
    return before + begin + "\n" + "\n".join(blocks) + "\n" + end + after


def reports(told: str) -> list[str]:
    """Returns the reports in what the example printed, each with the line that says what it is of."""
    return [match[0].rstrip() for match in re.finditer(r"^X-ray of .*?\n\n", told, re.MULTILINE | re.DOTALL)]


def shortened(report: str) -> str:
    """Returns a report with a row of dots in the place of all but some rows at the ends of its table."""
    lines = report.splitlines()
    rows = [index for index, line in enumerate(lines) if line.startswith("│")]
    kept = {*rows[:ROWS], *rows[-ROWS:]}
    dots = re.sub(r"[^│]", " ", lines[rows[0]]).replace("│  ", "│ …", 1)
    shown: list[str] = []
    for index, line in enumerate(lines):
        if index not in rows or index in kept:
            shown.append(line.rstrip())
        elif dots not in shown:
            shown.append(dots)
    return "\n".join(shown)


if __name__ == "__main__":
    main()
