"""Settings of layers as values that stay what they are, so that a change of one is seen."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np

_PLAIN = (bool, int, float, str, bytes, type(None), np.generic)
_CONTAINERS = (tuple, list, Mapping, AbstractSet)


def is_setting(value: Any) -> bool:
    """Returns whether an attribute is a setting: a plain value, a function, an array, or a container."""
    return isinstance(value, (*_PLAIN, *_CONTAINERS, np.ndarray)) or callable(value)


def settled(value: Any) -> Any:
    """Returns what compares equal to the same of another moment as long as the setting is what it was.

    Of arrays it has the type, the shape and a digest; of other objects, such as the layers in a list, which they are.

    Args:
        value: A setting.
    """
    return _settled(value, ())


def _settled(value: Any, around: tuple[int, ...]) -> Any:
    if isinstance(value, np.ndarray):
        return _of_array(value)
    if id(value) in around:  # a container within itself
        return around.index(id(value))
    if not isinstance(value, _CONTAINERS):
        return value if isinstance(value, _PLAIN) or callable(value) else _Itself(value)
    around = (*around, id(value))
    if isinstance(value, Mapping):
        return type(value), [(_settled(key, around), _settled(each, around)) for key, each in value.items()]
    each = [_settled(part, around) for part in value]
    return type(value), sorted(each, key=repr) if isinstance(value, AbstractSet) else each


class _Itself:
    """An object that equals nothing else, whatever its own `==` says: tensors compare entry by entry.

    It is not kept alive where that can be helped.
    """

    def __init__(self, value: Any) -> None:
        try:
            self.value = weakref.ref(value)
        except TypeError:
            self.value = lambda: value

    def __eq__(self, other: object) -> bool:
        value = self.value()
        return isinstance(other, _Itself) and value is not None and value is other.value()

    __hash__ = None  # pyright: ignore[reportAssignmentType]


def _of_array(array: np.ndarray) -> Any:
    if array.dtype.hasobject:
        return array.shape, repr(array.tolist())
    return array.dtype.str, array.shape, hashlib.blake2b(np.ascontiguousarray(array).data).digest()
