"""Sub-layers in a layer's configuration: out as Keras's own dictionaries, in as layers."""

from __future__ import annotations

from typing import Any, cast

import keras

PACKAGE = "keras_residual"


def register(cls: type) -> type:
    """Registers a class under this package, so that a saved model loads without `custom_objects`."""
    return keras.saving.register_keras_serializable(package=PACKAGE)(cls)


def serialize(value: Any) -> Any:
    """Returns `value` as a configuration holds it: layers, also in a list, as dictionaries; anything else as it is."""
    if isinstance(value, keras.Layer):
        config = cast(dict[str, Any], keras.saving.serialize_keras_object(value))
        # The layer that holds it builds it. Built by itself on loading, its weights would lose the holder's name
        # from their paths.
        config.pop("build_config", None)
        return config
    if isinstance(value, (list, tuple)):
        return [serialize(item) for item in value]
    return value


def deserialize(value: Any) -> Any:
    """Returns what `serialize` was given."""
    if isinstance(value, dict) and "class_name" in value:
        return keras.saving.deserialize_keras_object(value)
    if isinstance(value, (list, tuple)):
        return [deserialize(item) for item in value]
    return value
