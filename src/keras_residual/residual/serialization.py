"""Layers as plain data and back: what every configuration of this library consists of.

Plain data are dictionaries, lists, strings, numbers, booleans and None, so that every way of saving accepts them. A
layer that occurs more than once is one layer again when it is read.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import keras
import numpy as np

from keras_residual._keras import LEGACY_FORMAT, READ, WRITTEN, get_global_attribute, set_global_attribute
from keras_residual.residual.shapes import sublayers

PACKAGE = "keras_residual"

_ID = "shared_object_id"


def register(cls: type) -> type:
    """Registers a class under this package, so that a saved model loads without `custom_objects`."""
    return keras.saving.register_keras_serializable(package=PACKAGE)(cls)


def plain(value: Any) -> Any:
    """Returns `value` as plain data: objects, also in lists and dictionaries, become Keras's own dictionaries.

    Layers must be written within `writing`.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, keras.Layer):
        _announce(value)
        held = {part.name for part in sublayers(value) if isinstance(part, keras.Sequential) and "/" in str(part.path)}
        return _unbuilt(plain(keras.saving.serialize_keras_object(value)), held)
    is_function = callable(value) and not hasattr(value, "get_config")
    # Keras cannot read what it writes for a lambda as an activation.
    if is_function and getattr(value, "__name__", "") != "<lambda>":
        return plain(keras.activations.serialize(value))
    return plain(keras.saving.serialize_keras_object(value))


def config_of(layer: keras.Layer) -> dict[str, Any]:
    """Returns a layer's configuration as plain data, within `writing`."""
    return plain(layer)["config"]


def deserialize(value: Any, argument: str) -> Any:
    """Returns the objects, also in lists, that `plain` turned into dictionaries; anything else unchanged.

    Args:
        value: What `plain` returned.
        argument: What they are for, such as "Residual 'a': `branch`", for messages.

    Raises:
        ValueError: For a class or a function that is not registered with Keras.
    """
    with reading():
        if isinstance(value, (list, tuple)):
            return [deserialize(item, argument) for item in value]
        if isinstance(value, dict) and "class_name" in value:
            return _deserialize(value, argument)
    if inspect.isfunction(value) and getattr(keras.layers, value.__name__, None) is value:
        # From a file of Keras's older format, which takes the string "add" for the function `keras.layers.add`.
        return value.__name__
    return value


def _deserialize(config: dict[str, Any], argument: str) -> Any:
    try:
        return keras.saving.deserialize_keras_object(config)
    except TypeError as error:
        unknown = re.search(r"Could not locate (class|function) '([^']+)'", str(error))
        if unknown is None:
            raise
        kind, name = unknown.groups()
        raise ValueError(
            f"{argument} was saved with the {kind} {name!r}, which is not registered. Decorate it with "
            f"@keras.saving.register_keras_serializable() and import its module before loading, or pass "
            f"custom_objects={{{name!r}: {name}}} to the function that loads."
        ) from error


def copied(layers: Any, argument: str) -> Any:
    """Returns copies of layers, also in lists, from their configurations; a shared layer stays shared."""
    with writing(fresh=True):
        config = plain(layers)
    # In a scope of its own: while Keras loads a model, an id that it knows already stands for the object that has it.
    with reading(fresh=True):
        return deserialize(config, argument)


# --- Layers that occur more than once --------------------------------------------------------------------------------


@contextmanager
def writing(*, fresh: bool = False) -> Iterator[bool]:
    """Opens a scope in which layers are written with ids, unless one is open; yields whether it did."""
    with _scope(WRITTEN, fresh) as opened:
        yield opened


@contextmanager
def reading(*, fresh: bool = False) -> Iterator[bool]:
    """Opens a scope in which layers of one id are one layer, unless one is open; yields whether it did."""
    with _scope(READ, fresh) as opened:
        yield opened


@contextmanager
def _scope(kind: str, fresh: bool) -> Iterator[bool]:
    outer = get_global_attribute(kind)
    if outer is not None and not fresh:
        yield False
        return
    legacy = get_global_attribute(LEGACY_FORMAT)
    set_global_attribute(kind, {})
    # The older format has no ids; what is nested in a layer is read by this module, whatever surrounds it.
    set_global_attribute(LEGACY_FORMAT, False)
    try:
        yield True
    finally:
        set_global_attribute(kind, outer)
        set_global_attribute(LEGACY_FORMAT, legacy)


def _announce(layer: keras.Layer) -> None:
    """Makes Keras write ids for a layer and for all layers within.

    By itself it does so only when it meets a layer for the second time, and then misses the first place if that is in
    another layer's configuration.
    """
    known = cast(dict[int, Any], get_global_attribute(WRITTEN))
    for part in sublayers(layer):
        known.setdefault(id(part), {})


def with_own_ids(config: Any, name: str) -> Any:
    """Returns a configuration in which only layers that occur more than once have ids, which begin with `name`.

    Keras's own ids are memory addresses.
    """
    known = cast(dict[int, Any], get_global_attribute(WRITTEN))
    layers = {key for key, written in known.items() if "class_name" not in written}
    counts = Counter(key for key in ids_in(config) if key in layers)
    fresh = itertools.count()
    return _with_ids(config, {key: f"{name}/{next(fresh)}" for key, count in counts.items() if count > 1})


def without_ids(config: Any) -> Any:
    """Returns a configuration without ids, to be compared with others."""
    return _with_ids(config, {})


def ids_in(config: Any) -> Iterator[Any]:
    """Yields the ids of the objects in a configuration."""
    if isinstance(config, dict):
        if _ID in config:
            yield config[_ID]
        for item in config.values():
            yield from ids_in(item)
    elif isinstance(config, list):
        for item in config:
            yield from ids_in(item)


def _with_ids(config: Any, names: Mapping[Any, str]) -> Any:
    if isinstance(config, list):
        return [_with_ids(item, names) for item in config]
    if not isinstance(config, dict):
        return config
    made = {key: _with_ids(item, names) for key, item in config.items() if key != _ID}
    return {**made, _ID: names[config[_ID]]} if config.get(_ID) in names else made


def _unbuilt(config: Any, held: set[str]) -> Any:
    """Returns a configuration from which no layer builds itself.

    The layer that holds them builds them; otherwise the paths of their weights would lack its name.

    Args:
        config: The configuration.
        held: Names of the `Sequential`s that their holder built. The input layer that building leaves in them would
            make them build themselves.
    """
    if isinstance(config, list):
        return [_unbuilt(item, held) for item in config]
    if not isinstance(config, dict):
        return config
    made = {key: _unbuilt(item, held) for key, item in config.items()}
    if "class_name" not in config or not isinstance(config.get("config"), dict):
        return made
    made.pop("build_config", None)
    if config["class_name"] == "Sequential":
        inner = made["config"]
        inner.pop("build_input_shape", None)
        if inner["name"] in held:
            inner["layers"] = [layer for layer in inner["layers"] if layer["class_name"] != "InputLayer"]
    return made
