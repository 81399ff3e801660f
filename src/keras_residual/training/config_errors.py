"""Messages for a configuration that cannot be used: the key, the rule, the value, the nearest key."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError


class ConfigError(ValueError):
    """A configuration names a key that does not exist or a value that cannot be used."""


def explain(error: ValidationError, root: type[BaseModel]) -> str:
    """Returns one line for the first key that is wrong."""
    problems = error.errors(include_url=False)
    first = problems[0]
    path = _path(first["loc"], root)
    if first["type"] == "extra_forbidden":
        return nearest_key(root, path[:-1], path[-1])
    # A field that takes a number or "auto" reports a problem for each; together they are the rule.
    rules = [_rule(problem) for problem in problems if _path(problem["loc"], root) == path]
    value = first["input"]
    return (
        f"TrainConfig: `{'.'.join(path)}` must be {' or '.join(dict.fromkeys(rules))}, "
        f"but received {value!r} ({type(value).__name__})."
    )


def nearest_key(root: type[BaseModel], sections: Sequence[str], name: str, *, full: str | None = None) -> str:
    """Returns the message for an unknown key, with the nearest one of its section, else of the whole configuration."""
    owner = _section(root, sections)
    where = f" in [{'.'.join(sections)}]" if sections else ""
    near = difflib.get_close_matches(name, list(owner.model_fields), n=1, cutoff=0.6)
    if not near and not sections:
        # `learning_rate` at the top: the key exists, one level down.
        every = {key: f"{part}.{key}" for part in owner.model_fields for key in _keys(owner, part)}
        near = [every[key] for key in difflib.get_close_matches((full or name).rpartition(".")[2], list(every), n=1)]
    if full is not None and name in owner.model_fields:
        return f"{'.'.join([*sections, name])!r} is a value, not a section, so there is no {full!r}."
    hint = f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(owner.model_fields)}."
    return f"Unknown key {name!r}{where}.{hint}"


def _section(root: type[BaseModel], sections: Sequence[str]) -> type[BaseModel]:
    for name in sections:
        inner: Any = root.model_fields[name].annotation
        root = inner
    return root


def _keys(owner: type[BaseModel], name: str) -> list[str]:
    return list(getattr(owner.model_fields[name].annotation, "model_fields", {}))


def _path(location: Sequence[int | str], root: type[BaseModel]) -> list[str]:
    """Cuts a pydantic location to the key: what follows is the alternative of a union or the place in a list."""
    path: list[str] = []
    owner: Any = root
    for part in location:
        path.append(str(part))
        fields = getattr(owner, "model_fields", {})
        if part not in fields:
            break
        owner = fields[part].annotation
        if not hasattr(owner, "model_fields"):
            break
    return path


def _rule(problem: Any) -> str:
    if problem["type"] in {"model_type", "model_attributes_type"}:
        return "a section of keys"
    # "a valid number, unable to parse string as a number": the rule is what stands before the comma.
    return problem["msg"].removeprefix("Input should be ").partition(", unable")[0].replace("a valid tuple", "a list")
