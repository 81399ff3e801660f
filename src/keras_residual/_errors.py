"""Messages for bad input: each names the owner, the argument, the rule, what came and the way out.

Names and values come from the files of others: a message shows them on one line, bounded, and with nothing in them that
a terminal obeys.
"""

from __future__ import annotations

import difflib
import itertools
import math
import re
import reprlib
from collections.abc import Iterable, Sized
from pathlib import Path

_VALUE, _MESSAGE = 300, 4000
"""The most characters of a value, and of a whole message."""
_NUMBERS = 10
"""The most numbers of a tensor that are shown."""


def printable(text: object, limit: int = 200) -> str:
    r"""Returns foreign text as it can be shown: on one line, without control characters, of `limit` characters at most.

    What a terminal would obey (escape codes, line ends, marks of writing direction) becomes its Python escape. Of a
    longer text the middle is left out, since the end of a path says most.

    Args:
        text: The text, or what has one.
        limit: The most characters of the result.

    Example:
        >>> printable("conv1\x1b[31m.weight")
        'conv1\\x1b[31m.weight'
        >>> printable("a" * 1000, limit=20)
        'aaaaaaaaaaaa … aaaaa'
    """
    text = str(text)
    # Escapes make a text longer, so what is left is measured after them; the first cut bounds the work.
    text = _escaped(_middle_left_out(text, limit))
    return _middle_left_out(text, limit)


def shown(value: object) -> str:
    """Returns `repr(value)` as `printable` has it; a long or deep container is not written out before it is cut.

    Of a tensor or an array of more than some numbers it is the shape and the dtype.
    """
    sizes = _sizes(value)
    if sizes and (None in sizes or math.prod(size or 0 for size in sizes) > _NUMBERS):
        dtype = value.dtype  # pyright: ignore[reportAttributeAccessIssue]
        return printable(f"{sizes} of {getattr(dtype, 'name', dtype)}", _VALUE)
    # An array's text goes over several lines; in that of a string a line end is an escape already.
    return printable(re.sub(r"\s*\n\s*", " ", _REPR.repr(value)), _VALUE)


def _sizes(value: object) -> tuple[int | None, ...] | None:
    """Returns the shape of a tensor or an array; None of anything else."""
    try:
        sizes = tuple(value.shape) if hasattr(value, "dtype") else ()  # pyright: ignore[reportAttributeAccessIssue]
    except Exception:  # an object whose shape is something else
        return None
    return sizes if all(size is None or isinstance(size, int) for size in sizes) else None


def listed(names: Iterable[object], most: int = 8) -> str:
    """Returns foreign names for a message: "a, b, c and 5 more"; in quotes where blanks would not be seen."""
    names = names if isinstance(names, Sized) else list(names)
    first = ", ".join(_plain_or_quoted(name) for name in itertools.islice(names, most))
    return f"{first} and {len(names) - most} more" if len(names) > most else first


def _plain_or_quoted(name: object) -> str:
    text = str(name)
    return shown(text) if not text or text != text.strip() or "  " in text else printable(text)


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _middle_left_out(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    end = max(0, (limit - 3) // 3)
    return f"{text[: limit - 3 - end]} … {text[len(text) - end :]}"


class _BoundedRepr(reprlib.Repr):
    """`repr` of the first items of containers, in their own order."""

    def __init__(self):
        super().__init__()
        self.maxlevel = 8
        self.maxstring = self.maxother = self.maxlong = _VALUE
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdeque = self.maxarray = 30

    def repr_int(self, x: int, level: int) -> str:
        # Python itself refuses to write out thousands of digits.
        return repr(x) if x.bit_length() < 1000 else f"<a number of {x.bit_length()} bits>"

    def repr_dict(self, x: dict, level: int) -> str:
        if level <= 0:
            return "{...}"
        items = [
            f"{self.repr1(key, level - 1)}: {self.repr1(value, level - 1)}"
            for key, value in itertools.islice(x.items(), self.maxlist)
        ]
        return f"{{{', '.join([*items, '...'] if len(x) > self.maxlist else items)}}}"


_REPR = _BoundedRepr()


class CheckpointError(ValueError):
    """Weights that cannot be had from the place that was named."""


def bad_checkpoint(place: str | Path, what: str, way_out: str) -> CheckpointError:
    """Returns the error for weights that cannot be had.

    Args:
        place: The file, folder or repository, as the caller named it.
        what: What is wrong, without a full stop.
        way_out: Sentences that say what to do instead.
    """
    return CheckpointError(printable(f"Checkpoint {shown(str(place))}: {what}. {way_out}", _MESSAGE))


def bad_data(owner: str, what: str, way_out: str = "") -> ValueError:
    """Returns the error for data that cannot be read or learned from.

    Args:
        owner: What was being read, for example `"Data 'pets'"`.
        what: What is wrong, without a full stop.
        way_out: Sentences that say what to do instead.
    """
    return ValueError(printable(f"{owner}: {what}. {way_out}".rstrip(), _MESSAGE))


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
    message = f"{owner}: unknown name for `{argument}`: {shown(name)}.{did_you_mean(name, names)}"
    return ValueError(printable(message, _MESSAGE))


def did_you_mean(name: str, allowed: Iterable[str], *, most: int = 30) -> str:
    """Returns " Did you mean …?" where a name is near, and the names that are allowed."""
    name, names = name[:_VALUE], list(allowed)
    folded = {candidate.lower(): candidate for candidate in names}
    near = difflib.get_close_matches(name.lower(), list(folded), n=8, cutoff=0.6)
    # Of equally similar names the one that begins alike: resnet2O is resnet20, not resnet32.
    best = max(near, key=lambda known: (_similarity(name.lower(), known), _alike(name.lower(), known)), default=None)
    # Blanks at the ends are not seen, however many they are.
    best = next((known for known in folded if known.split() == name.lower().split() != []), best)
    # Spreadsheets take the zeros away with which a number begins.
    bare = name.lower().lstrip("0")
    best = best or next((known for known in folded if known.lstrip("0") == bare != ""), None)
    suggestion = f" Did you mean {shown(folded[best])}?" if best else ""
    listing = f" Known: {listed(names, most)}." if len(names) <= most else f" There are {len(names)} names."
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
    message = (
        f"{owner}: {first} has shape {tuple(first_shape)} and {second} has shape {tuple(second_shape)}, "
        f"which cannot be merged. {way_out}"
    )
    return ValueError(printable(message, _MESSAGE))


def _message(owner: str, argument: str, rule: str, value: object, way_out: str) -> str:
    message = f"{owner}: `{argument}` must be {rule}, but received {shown(value)} ({type(value).__name__})."
    return printable(f"{message} {way_out}" if way_out else message, _MESSAGE)
