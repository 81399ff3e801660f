"""A model that takes standardised maps, as one that takes pictures with values 0..255."""

from __future__ import annotations

from typing import Any

import keras

from keras_residual._errors import bad_argument
from keras_residual.deploy.signature import OWNER
from keras_residual.models.preprocessing import preprocessing


def as_layer(given: Any) -> Any:
    """Returns the layer of a name of weights, or the layer itself."""
    return preprocessing(given) if isinstance(given, str) else given


def takes_pictures(model: keras.Model, given: Any) -> keras.Model:
    """Returns a model from pictures of the input's size, with values 0..255 and the channels last, to the outputs.

    Args:
        model: A model with one input, of maps.
        given: What says mean and deviation of the channels.

    Raises:
        ValueError: If the model takes something else.
    """
    layer, shape = as_layer(given), getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4:
        rule = "None for a model that does not take one batch of maps"
        raise bad_argument(OWNER, "preprocessing", rule, shape, "The shape of its input is shown.")
    first = layer.data_format == "channels_first"
    height, width, channels = (*shape[2:], shape[1]) if first else shape[1:]
    if channels != len(layer.mean):
        rule = f"for {channels} channels, as the model takes them"
        raise bad_argument(OWNER, "preprocessing", rule, f"for {len(layer.mean)}")
    pictures = keras.Input((height, width, channels), dtype="uint8", name="pictures")
    scale = [1 / (255 * std) for std in layer.std]
    offset: Any = [-mean / std for mean, std in zip(layer.mean, layer.std, strict=True)]
    x: Any = keras.layers.Rescaling(scale, offset, name="standardised")(pictures)
    if first:
        x = keras.layers.Permute((3, 1, 2), name="channels_first")(x)
    return keras.Model(pictures, model(x), name=model.name)
