"""Numbers as a page shows them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, *, percent: bool = False) -> str:
    """Returns a finite number with three digits, for example "0.0312", "1020", "3.1e-9" or "12.5 %"."""
    rounded = float(f"{100 * value if percent else value:.3g}")
    text = f"{rounded:.0f}" if 1e3 <= abs(rounded) < 1e6 else f"{rounded:.3g}"
    # Without the zero in e-09, as the page's script has it.
    return re.sub(r"e([+-])0", r"e\1", text) + (" %" if percent else "")


def power_of_ten(exponent: int, *, percent: bool = False) -> str:
    """Returns a power of ten as an axis names it: "0.01", "1000", "10⁻⁸", and in percent "1 %"."""
    shown = exponent + 2 if percent else exponent
    text = f"{10.0**shown:g}" if -3 <= shown <= 3 else "10" + str(shown).translate(_RAISED)
    return f"{text} %" if percent else text


def place(names: Sequence[str], index: int) -> str:
    """Returns a block's place and name, for example "block 3 (conv3)"."""
    return f"block {index + 1} ({names[index]})"


def plain(value: Any) -> Any:
    """Returns a structure that JSON has, its numbers with four digits; numbers that are not finite become text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else "not a number" if math.isnan(value) else "infinite"
    return value
