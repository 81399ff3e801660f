"""Checks of arguments that many callers share, with messages that name the rule and what was received."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, TypeVar

import keras

from keras_residual._errors import bad_argument, unknown_name, wrong_type

T = TypeVar("T")


def owner_of(layer: keras.layers.Layer) -> str:
    """Returns how messages name a layer: class and name, for example `"DropPath 'drop_path_3'"`."""
    return f"{type(layer).__name__} {layer.name!r}"


def number(owner: str, argument: str, value: Any, rule: str, valid: Callable[[float], bool] | None = None) -> float:
    """Returns `value` as a float.

    Args:
        owner: What is being made, see `owner_of`.
        argument: Name of the argument as the caller spells it.
        value: What was received.
        rule: What it must be, so that "`argument` must be {rule}" reads as English.
        valid: Whether a finite number obeys the rule; by default each does.

    Raises:
        TypeError: If `value` is not a real number.
        ValueError: If it is not finite or breaks the rule.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise wrong_type(owner, argument, rule, value)
    if not math.isfinite(value) or not (valid is None or valid(float(value))):
        raise bad_argument(owner, argument, rule, value)
    return float(value)


def positive(owner: str, argument: str, value: Any) -> float:
    """Returns `value` as a float above 0; raises as `number`."""
    return number(owner, argument, value, "a number above 0", lambda v: v > 0)


def share(owner: str, argument: str, value: Any) -> float:
    """Returns `value` as a float in [0, 1), such as a rate of dropout or what is kept of a mean; raises as `number`."""
    return number(owner, argument, value, "a number in [0, 1)", lambda v: 0 <= v < 1)


def whole_number(owner: str, argument: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """Returns `value` as an integer of at least `least`, and of at most `most` where time or memory grow with it.

    Raises as `number`.
    """
    rule = f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most:,}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise wrong_type(owner, argument, rule, value)
    if not least <= int(value) <= (int(value) if most is None else most):
        raise bad_argument(owner, argument, rule, value)
    return int(value)


def axis_index(owner: str, argument: str, value: Any) -> int:
    """Returns `value` as an integer that can name an axis other than the batch axis."""
    rule = "an integer other than 0, the batch axis"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise wrong_type(owner, argument, rule, value)
    if value == 0:
        raise bad_argument(owner, argument, rule, value)
    return int(value)


def axis_in_rank(owner: str, axis: int, rank: int) -> int:
    """Returns `axis` counted from 0, or raises a `ValueError` where a tensor of this rank lacks it."""
    if not -rank < axis < rank:
        raise bad_argument(owner, "axis", f"an axis behind the batch axis of a tensor of rank {rank}", axis)
    return axis % rank


def flag(owner: str, argument: str, value: Any) -> bool:
    """Returns `value` where it is `True` or `False`; raises a `TypeError` otherwise."""
    if not isinstance(value, bool):
        raise wrong_type(owner, argument, "True or False", value)
    return value


def choice(owner: str, argument: str, value: Any, allowed: tuple[str, ...]) -> str:
    """Returns `value` where it is one of the names; raises with the nearest one otherwise."""
    if not isinstance(value, str):
        raise wrong_type(owner, argument, f"one of {', '.join(map(repr, allowed))}", value)
    if value not in allowed:
        raise unknown_name(owner, argument, value, allowed)
    return value


def named(owner: str, argument: str, value: Any, kind: type[T], table: Mapping[str, type[T]], **kwargs: Any) -> T:
    """Returns `value`, or what its name stands for, made with `kwargs`.

    Args:
        owner: What is being made, see `owner_of`.
        argument: Name of the argument as the caller spells it.
        value: An object of the kind, or one of the names of `table`.
        kind: Class of the objects.
        table: Classes by name.
        kwargs: Arguments of the class that a name stands for.
    """
    if isinstance(value, kind):
        return value
    if not isinstance(value, str):
        raise wrong_type(owner, argument, f"a {kind.__name__} or one of {', '.join(table)}", value)
    if value not in table:
        raise unknown_name(owner, argument, value, table)
    return table[value](**kwargs)
