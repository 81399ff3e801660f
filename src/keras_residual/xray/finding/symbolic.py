"""Symbolic calls of layers that leave no trace: in the layers, in Keras's counters of names, in its operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras

from keras_residual._keras import NAME_COUNTS, get_global_attribute
from keras_residual.residual.shapes import sublayers

_OPERATORS = tuple(f"__{name}__" for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "matmul", "pow"))
_AS_ARRAY = "__jax_array__"


@contextmanager
def leaving_untouched(layer: keras.Layer) -> Iterator[None]:
    """Lets a layer and the layers within it come out of the scope as they went in, whatever a call notes in them.

    That is what their attributes are, which nodes of graphs they belong to, and how many names Keras has given.

    Args:
        layer: The layer.
    """
    given: Any = get_global_attribute(NAME_COUNTS)
    names = dict(given or {})
    before = [(part, dict(vars(part)), _nodes(part)) for part in sublayers(layer)]
    try:
        yield
    finally:
        for part, attributes, nodes in before:
            now = part.__dict__
            for name in [name for name in now if name not in attributes]:
                del now[name]
            now.update(attributes)
            for owned, count in nodes:
                while len(owned) > count:
                    owned.pop()
        given = get_global_attribute(NAME_COUNTS)
        if given is not None:
            given.clear()
            given.update(names)


def _nodes(part: Any) -> list[tuple[list[Any], int]]:
    return [(owned, len(owned)) for owned in (part._inbound_nodes, part._outbound_nodes)]


@contextmanager
def operators_that_defer() -> Iterator[None]:
    """Lets `variable * tensor` and `array * tensor` be operations of Keras, as `tensor * variable` is one.

    Keras's variables and some backends' arrays try to turn a symbolic tensor that stands behind the sign into an array,
    and fail; within the scope they leave it to the symbolic tensor.
    """
    with ExitStack() as patched:
        for name in _OPERATORS:
            owner = next(kind for kind in keras.Variable.__mro__ if name in vars(kind))
            patched.enter_context(_replaced(owner, name, _deferring(vars(owner)[name])))
        patched.enter_context(_replaced(keras.KerasTensor, _AS_ARRAY, None))
        yield


def _deferring(method: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: NotImplemented if isinstance(other, keras.KerasTensor) else method(self, other)


@contextmanager
def _replaced(owner: type, name: str, value: Any) -> Iterator[None]:
    """Within the scope, an attribute of a class is another, or missing for None."""
    before = vars(owner).get(name)
    if value is not None:
        setattr(owner, name, value)
    elif before is not None:
        delattr(owner, name)
    try:
        yield
    finally:
        if before is not None:
            setattr(owner, name, before)
