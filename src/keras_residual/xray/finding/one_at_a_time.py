"""One thread at a time: what is replaced in models and in Keras's classes for a while is no thread's own."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

LOCK = threading.RLock()
"""Held while anything of a model or of Keras is replaced; a thread that holds it may take it again."""

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def one_at_a_time(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Returns the function with calls that wait until no other thread holds the lock.

    Args:
        function: What replaces anything of a model or of Keras.
    """

    @functools.wraps(function)
    def waiting(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with LOCK:
            return function(*args, **kwargs)

    return waiting
