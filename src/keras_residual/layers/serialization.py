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
        if isinstance(value, keras.Sequential) and "/" in (value.path or ""):
            # Built by its holder too: the input layer that this left in it would make it build itself.
            layers = config["config"]["layers"]
            config["config"]["layers"] = [layer for layer in layers if layer["class_name"] != "InputLayer"]
        return _unbuilt(config)
    if isinstance(value, (list, tuple)):
        return [serialize(item) for item in value]
    return value


def _unbuilt(config: Any) -> Any:
    """Returns a configuration by which no layer builds itself when it is made.

    The layer that holds them builds them. Built by themselves, their weights would lose its name from their paths.
    """
    if isinstance(config, dict):
        built = ("build_config", "build_input_shape")
        return {key: _unbuilt(value) for key, value in config.items() if key not in built}
    if isinstance(config, (list, tuple)):
        return [_unbuilt(item) for item in config]
    return config


def deserialize(value: Any) -> Any:
    """Returns what `serialize` was given."""
    if isinstance(value, dict) and "class_name" in value:
        return keras.saving.deserialize_keras_object(value)
    if isinstance(value, (list, tuple)):
        return [deserialize(item) for item in value]
    return value
