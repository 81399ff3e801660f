"""Messages for bad input: each names the owner, the argument, the rule, what came and the way out."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable
from pathlib import Path


class CheckpointError(ValueError):
    """Weights that cannot be had from the place that was named."""


def bad_checkpoint(place: str | Path, what: str, way_out: str) -> CheckpointError:
    """Returns the error for weights that cannot be had.

    Args:
        place: The file, folder or repository, as the caller named it.
        what: What is wrong, without a full stop.
        way_out: Sentences that say what to do instead.
    """
    return CheckpointError(f"Checkpoint {str(place)!r}: {what}. {way_out}")


def missing_package(package: str, *, extra: str) -> ImportError:
    """Returns the `ImportError` for a package that is not installed, with the line that installs it."""
    return ImportError(
        f"{package!r} is not installed. This feature of keras-residual needs it: pip install 'keras-residual[{extra}]'"
    )


def bad_argument(owner: str, argument: str, rule: str, value: object, way_out: str = "") -> ValueError:
    """Returns the `ValueError` for a value that breaks a rule.

    Args:
        owner: What was being made or called, for example `"Residual 'block1'"`.
        argument: Name of the argument as the caller spells it.
        rule: What the argument must be, so that "`argument` must be {rule}" reads as English.
        value: What was received.
        way_out: One sentence that says what to do instead.
    """
    return ValueError(_message(owner, argument, rule, value, way_out))


def wrong_type(owner: str, argument: str, rule: str, value: object, way_out: str = "") -> TypeError:
    """Returns the `TypeError` for a value of the wrong type; arguments as in `bad_argument`."""
    return TypeError(_message(owner, argument, rule, value, way_out))


def unknown_name(owner: str, argument: str, name: str, allowed: Iterable[str]) -> ValueError:
    """Returns the `ValueError` for a name that is not in a list, with the nearest one as a suggestion."""
    names = list(allowed)
    return ValueError(f"{owner}: unknown name for `{argument}`: {name!r}.{did_you_mean(name, names)}")


def did_you_mean(name: str, allowed: Iterable[str], *, most: int = 30) -> str:
    """Returns " Did you mean …?" where a name is near, and the names that are allowed."""
    names = list(allowed)
    folded = {candidate.lower(): candidate for candidate in names}
    near = difflib.get_close_matches(name.lower(), list(folded), n=8, cutoff=0.6)
    # Of equally similar names the one that begins alike: resnet2O is resnet20, not resnet32.
    best = max(near, key=lambda known: (_similarity(name.lower(), known), _alike(name.lower(), known)), default=None)
    suggestion = f" Did you mean {folded[best]!r}?" if best else ""
    listing = f" Known: {', '.join(names)}." if len(names) <= most else f" There are {len(names)} names."
    return suggestion + listing


def _similarity(name: str, known: str) -> float:
    return difflib.SequenceMatcher(None, known, name).ratio()


def _alike(name: str, known: str) -> int:
    return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(name, known, strict=False))))


def shape_mismatch(
    owner: str,
    first: str,
    first_shape: tuple[int | None, ...],
    second: str,
    second_shape: tuple[int | None, ...],
    way_out: str,
) -> ValueError:
    """Returns the `ValueError` for two shapes that cannot be put together."""
    return ValueError(
        f"{owner}: {first} has shape {tuple(first_shape)} and {second} has shape {tuple(second_shape)}, "
        f"which cannot be merged. {way_out}"
    )


def _message(owner: str, argument: str, rule: str, value: object, way_out: str) -> str:
    message = f"{owner}: `{argument}` must be {rule}, but received {value!r} ({type(value).__name__})."
    return f"{message} {way_out}" if way_out else message
