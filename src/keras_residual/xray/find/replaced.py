"""What is replaced in a model and in Keras for a while: one thread alone sees it, and it is put back in any case."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

import keras

from keras_residual._keras import NAME_COUNTS, get_global_attribute
from keras_residual.residual.shapes import sublayers
from keras_residual.xray.find.structure import is_functional

LOCK = threading.RLock()
"""Held while anything of a model or of Keras is replaced; a thread that holds it may take it again."""

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_OPERATORS = tuple(f"__{name}__" for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "matmul", "pow"))
_AS_ARRAY = "__jax_array__"
_REMAT_MODE = "_remat_mode"


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


@contextmanager
def instead_of(operation: Any, name: str, wrapped: Callable[[Any], Any]) -> Iterator[None]:
    """Within the scope, a method of one object is what `wrapped` makes of it; afterwards all is as before.

    An attribute of the object hides the method of its class, so that nothing of the class, and no other object, is
    touched. A thread other than this one, which may call the same model meanwhile, gets the method itself.

    Args:
        operation: The object.
        name: Name of the method.
        wrapped: From the method, bound to the object, to what is called in its place.
    """
    before = operation.__dict__.get(name)
    method = getattr(operation, name)
    operation.__dict__[name] = _for_this_thread(wrapped(method), method)
    try:
        yield
    finally:
        if before is None:
            del operation.__dict__[name]
        else:
            operation.__dict__[name] = before


def _for_this_thread(replacement: Callable[..., Any], method: Callable[..., Any]) -> Callable[..., Any]:
    """Returns what calls a replacement in this thread, and the method itself in all others."""
    thread = threading.get_ident()

    def call(*args: Any, **kwargs: Any) -> Any:
        return (replacement if threading.get_ident() == thread else method)(*args, **kwargs)

    return call


# --- Symbolic calls --------------------------------------------------------------------------------------------------


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
    and fail; within the scope they leave it to the symbolic tensor. Other threads find the operators as Keras has them.
    """
    with ExitStack() as patched:
        for name in _OPERATORS:
            owner = next(kind for kind in keras.Variable.__mro__ if name in vars(kind))
            patched.enter_context(_replaced(owner, name, _deferring(vars(owner)[name])))
        as_array = vars(keras.KerasTensor).get(_AS_ARRAY)
        if as_array is not None:
            patched.enter_context(_replaced(keras.KerasTensor, _AS_ARRAY, _Hidden(as_array)))
        yield


def _deferring(method: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return _for_this_thread(
        lambda self, other: NotImplemented if isinstance(other, keras.KerasTensor) else method(self, other), method
    )


class _Hidden:
    """An attribute of a class that the thread which made this does not find, and all others do."""

    def __init__(self, attribute: Any) -> None:
        self._attribute = attribute
        self._thread = threading.get_ident()

    def __get__(self, instance: Any, owner: type) -> Any:
        if threading.get_ident() == self._thread:
            raise AttributeError
        return self._attribute.__get__(instance, owner)


@contextmanager
def _replaced(owner: type, name: str, value: Any) -> Iterator[None]:
    """Within the scope, an attribute of a class is another."""
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


# --- Rematerialisation -----------------------------------------------------------------------------------------------


@contextmanager
def without_recomputation(model: keras.Layer) -> Iterator[None]:
    """Within the scope, no call in a model is recomputed for the gradient, which takes memory instead of time.

    What is noted in a call that is recomputed would be noted twice, or be gone with the backend's inner function,
    and variables would be written to when the scope that keeps them is left.

    Args:
        model: The model.
    """
    layers: list[Any] = list(sublayers(model))
    operations = [operation for layer in layers if is_functional(layer) for operation in layer.operations]
    kept = {id(operation): operation for operation in (*layers, *operations)}
    found = [(operation, getattr(operation, _REMAT_MODE, None)) for operation in kept.values()]
    modes = [(operation, mode) for operation, mode in found if mode is not None]
    for operation, _ in modes:
        operation.__dict__[_REMAT_MODE] = None
    try:
        yield
    finally:
        for operation, mode in modes:
            operation.__dict__[_REMAT_MODE] = mode
