"""Messages for a configuration that cannot be used: the key, the rule, the value, the nearest key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from keras_residual._errors import listed, shown

if TYPE_CHECKING:
    from pydantic import ValidationError

_NEAR = 0.6
"""How alike a key must be to be suggested; 1 is the same."""

_BY_CHANCE = 0.15
"""How much likelier two whole keys, which are longer, are alike by chance."""


class ConfigError(ValueError):
    """A configuration names a key that does not exist or a value that cannot be used."""


def explain(error: ValidationError, keys: Iterable[str]) -> str:
    """Returns one line for the first key that is wrong.

    Args:
        error: What pydantic found.
        keys: Every key of the configuration, dotted.
    """
    keys = list(keys)
    problems = error.errors(include_url=False)
    first = problems[0]
    if first["type"] == "extra_forbidden":
        return unknown_key(".".join(map(str, first["loc"])), keys)
    if first["type"] == "value_error" and not first["loc"]:
        return str(first.get("ctx", {}).get("error"))
    key = _key(first["loc"], keys)
    # A field that takes a number or "auto" reports a problem for each; together they are the rule.
    rules = [_rule(problem) for problem in problems if _key(problem["loc"], keys) == key]
    value = first["input"]
    return (
        f"TrainConfig: `{key}` must be {' or '.join(dict.fromkeys(rules))}, "
        f"but received {shown(value)} ({type(value).__name__})."
    )


def unknown_key(name: str, keys: Iterable[str]) -> str:
    """Returns the message for a name that is no key, with the nearest ones.

    Args:
        name: What came, dotted.
        keys: Every key of the configuration, dotted.
    """
    keys = list(keys)
    inside = [key for key in keys if key.startswith(f"{name}.")]
    if inside:
        return f"{shown(name)} is a section, not a value. Set one of its keys: {', '.join(inside)}."
    above = next((key for key in keys if name.startswith(f"{key}.")), None)
    if above:
        return f"{above!r} is a value, not a section, so there is no {shown(name)}."
    near = _nearest(name, keys)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else f" Known: {listed(keys, len(keys))}."
    return f"Unknown key {shown(name)}.{hint}"


def _nearest(name: str, keys: Sequence[str]) -> list[str]:
    """Returns the keys that are most like a name: as a whole, by the last part alone, by a word of it or its initials.

    So `lr` and `optimizer.lr` lead to `optimizer.learning_rate`, and `data.batchsize` to `batch_size`.
    """
    name = name[:100].lower()
    part = name.rpartition(".")[2]

    def likeness(key: str) -> float:
        last = key.rpartition(".")[2]
        words = last.split("_")
        if part == last or (len(words) > 1 and part == "".join(word[0] for word in words)):
            return 1.0
        return max(_likeness(part, last), _likeness(name, key) - _BY_CHANCE, 0.7 if part in words else 0.0)

    found = {key: likeness(key) for key in keys}
    best = max(found.values())
    return [key for key, value in found.items() if value == best >= _NEAR][:3]


def _likeness(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()


def _key(location: Sequence[int | str], keys: Sequence[str]) -> str:
    """Cuts a location of pydantic to the key: what follows is the alternative of a union or the place in a list."""
    whole = ".".join(map(str, location))
    return next((key for key in keys if whole == key or whole.startswith(f"{key}.")), whole)


def _rule(problem: Any) -> str:
    if problem["type"] in {"model_type", "model_attributes_type"}:
        return "a section of keys"
    # "a valid number, unable to parse string as a number": the rule is what stands before the comma.
    return problem["msg"].removeprefix("Input should be ").partition(", unable")[0].replace("a valid tuple", "a list")
