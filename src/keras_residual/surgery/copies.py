"""Copies of layers from their configuration, with their own weights and flags."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_residual.residual.shapes import keep_lora_alpha, sublayers


class Copies:
    """Makes one copy of each layer, and brings weights and flags over when all of them are built.

    Args:
        owner: The function that was called, for messages.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._pairs: list[tuple[keras.Layer, keras.Layer]] = []
        self._models: list[tuple[keras.Model, keras.Model]] = []

    def copy(self, operation: Any, **changes: Any) -> Any:
        """Returns a copy from the configuration, with some of its entries changed.

        Raises:
            ValueError: If the layer cannot be made from its configuration.
        """
        kind = type(operation)
        try:
            copied = kind.from_config({**operation.get_config(), **changes})
        except Exception as error:
            raise ValueError(
                f"{self._owner}: {operation.name!r} ({kind.__name__}) cannot be copied by its get_config and "
                f"from_config: {error}"
            ) from error
        if isinstance(operation, keras.Layer):
            self._pairs.append((operation, copied))
        return copied

    def note_model(self, original: keras.Model, renewed: keras.Model) -> None:
        """Records which model replaces another; its layers are copied separately, before it."""
        self._models.append((original, renewed))

    def bring_over(self) -> None:
        """Copies the weights, the random state and the `trainable` flags of every original.

        Raises:
            ValueError: If the weights of a copy differ in number or shape from the original's.
        """
        for original, copied in self._pairs:
            _bring_weights(self._owner, original, copied)
        # The outermost model first and layers last, since Keras hands a flag to everything inside.
        for original, renewed in reversed(self._models):
            if renewed.trainable != original.trainable:
                renewed.trainable = original.trainable
        for original, copied in self._pairs:
            _bring_flags(original, copied)


def _bring_weights(owner: str, original: keras.Layer, copied: keras.Layer) -> None:
    before, after = original.weights, copied.weights
    if [tuple(weight.shape) for weight in before] != [tuple(weight.shape) for weight in after]:
        raise other_weights(owner, original, copied)
    for source, target in zip(sublayers(original), sublayers(copied), strict=False):
        keep_lora_alpha(source, target)
    # Copied, since two models that train must not hold one array: JAX gives its memory away.
    for source, target in zip(before, after, strict=True):
        target.assign(ops.copy(source.value))
    for source, target in zip(_random_state(original), _random_state(copied), strict=False):
        target.assign(ops.copy(source.value))


def other_weights(owner: str, original: keras.Layer, copied: keras.Layer) -> ValueError:
    """Returns the error for a layer that its configuration does not describe fully."""
    return ValueError(
        f"{owner}: the copy of {original.name!r} ({type(original).__name__}) that its configuration makes has "
        f"{len(copied.weights)} weights, and not the same {len(original.weights)} as the original."
    )


def _random_state(layer: keras.Layer) -> list[Any]:
    return [variable for variable in layer.variables if variable.name == "seed_generator_state"]


def _bring_flags(original: keras.Layer, copied: keras.Layer) -> None:
    for source, target in zip(sublayers(original), sublayers(copied), strict=False):
        if target.trainable != source.trainable:
            target.trainable = source.trainable
    for source, target in zip(original.weights, copied.weights, strict=True):
        if target.trainable != source.trainable:
            target.trainable = source.trainable
