"""A method of one object replaced for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def instead_of(operation: Any, name: str, wrapped: Callable[[Any], Any]) -> Iterator[None]:
    """Within the scope, a method of one object is what `wrapped` makes of it; afterwards all is as before.

    An attribute of the object hides the method of its class, so that nothing of the class, and no other object, is
    touched.

    Args:
        operation: The object.
        name: Name of the method.
        wrapped: From the method, bound to the object, to what is called in its place.
    """
    before = operation.__dict__.get(name)
    method = getattr(operation, name)
    operation.__dict__[name] = wrapped(method)
    try:
        yield
    finally:
        if before is None:
            del operation.__dict__[name]
        else:
            operation.__dict__[name] = before
