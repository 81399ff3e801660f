"""Names: which are the same, and their natural order, `img2` before `img10`."""

from __future__ import annotations

import re
import unicodedata


def composed(name: str) -> str:
    """Returns the name in the Unicode form NFC, in which names that look the same are the same.

    macOS writes `ä` in names of files as `a` and a mark, other systems and most programs as one sign.
    """
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Returns the key that sorts names as people do: digits by value, letters without regard to case.

    Example:
        >>> sorted(["img10", "img2", "Img1"], key=natural_key)
        ['Img1', 'img2', 'img10']
    """
    parts = re.split(r"([0-9]+)", name.casefold())
    # A number sorts before a letter. Of two without leading zeros the longer one is larger; Python would not make a
    # number of thousands of digits.
    return [_by_value(part.lstrip("0")) if part.isdecimal() else (1, 0, part) for part in parts if part], name


def _by_value(digits: str) -> tuple[int, int, str]:
    return 0, len(digits), digits
