"""JSON: of others, a value or one line that says what is wrong with it; of ours, without what JSON lacks."""

from __future__ import annotations

import json
import math
from typing import Any

from keras_residual._errors import shown

_MOST_DIGITS = 1000


def parse(content: bytes | str) -> Any:
    """Returns the value.

    Raises:
        ValueError: If it is no JSON in UTF-8, or nested so deep that nobody means it, or an object has a key twice, of
            which two programs might take different values. The text has no full stop.
    """
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        return json.loads(text, object_pairs_hook=_without_doubles, parse_int=_number)
    except UnicodeDecodeError:
        raise ValueError("it is no text in UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON ({error})") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"it has {shown(name)} twice")
        found[name] = value
    return found


def _number(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"it has a number of {len(digits)} digits")
    return int(digits)


def finite(value: Any) -> Any:
    """Returns a structure with None in the place of numbers that are not finite, which JSON lacks."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
