"""A checkpoint of another library as a whole model, from raw pictures to logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from keras_residual._errors import bad_argument, bad_checkpoint
from keras_residual.models.catalog import family_of
from keras_residual.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from keras_residual.models.pretrained import pretrained_weights
from keras_residual.models.registry import create_model, resolve
from keras_residual.weights.hub import open_location
from keras_residual.weights.load import set_weights

_LEAST_FEATURES = 16
"""No network here has a head with fewer inputs."""


def convert_checkpoint(
    location: str | Path,
    name: str,
    *,
    input_shape: tuple[int, int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    strict: bool = False,
) -> keras.Model:
    """Returns a model with a checkpoint's weights that takes pictures with values 0..255 of the size it was made for.

    The number of classes is that of the checkpoint. Pictures are standardised by the model itself; they must have been
    resized and cropped before, see `Preprocessing`.

    Args:
        location: Where the weights are, see `load_weights`.
        name: Architecture, with or without a tag; a tag says how pictures are standardised.
        input_shape: `(height, width, channels)`. None: (32, 32, 3) for the networks for small pictures, else the size
            that the weights of the tag expect, or (224, 224, 3).
        mean: Mean of each channel that is subtracted from pictures with values 0..1; None for that of the tag, or
            ImageNet's.
        std: Deviation by which each channel is divided; None likewise.
        strict: Whether weights that no training leaves are refused rather than warned of, see `load_weights`.

    Raises:
        CheckpointError: If the weights cannot be read or are those of another architecture.
        ValueError: For an unknown name.

    Reference:
        The checkpoints of small pictures in use: https://github.com/akamaster/pytorch_resnet_cifar10
    """
    architecture, tag = resolve(name)
    known = pretrained_weights(f"{architecture}.{tag}") if tag else None
    family = family_of(architecture)
    if family in ("other", "resnet3d"):
        raise bad_argument("convert_checkpoint", "name", "a network on pictures that others have too", name)
    size = (32, 32) if family == "cifar" else known.input_size if known else (224, 224)
    shape = input_shape or (size[0], size[1], 3)
    found = open_location(location)
    network = create_model(
        architecture,
        input_shape=_in_data_format(shape),
        num_classes=_num_classes(found.tensors, architecture, found.source),
        weights=None,
    )
    set_weights(network, found.tensors, source=found.source, strict=strict)
    mean = mean if mean is not None else known.mean if known else IMAGENET_MEAN
    std = std if std is not None else known.std if known else IMAGENET_STD
    inputs = keras.Input(shape, name="pictures")
    variance = np.square(255 * np.asarray(std))
    standardise = keras.layers.Normalization(mean=255 * np.asarray(mean), variance=variance, name="standardise")
    hidden = standardise(inputs)
    if keras.config.image_data_format() == "channels_first":
        hidden = keras.layers.Permute((3, 1, 2), name="channels_first")(hidden)
    return keras.Model(inputs, network(hidden), name=f"{architecture}_on_pictures")


def _in_data_format(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    first = keras.config.image_data_format() == "channels_first"
    return (shape[2], shape[0], shape[1]) if first else shape


def _num_classes(tensors: dict[str, np.ndarray], architecture: str, source: str) -> int:
    """Returns the number of classes of a checkpoint's head."""
    heads = [head for head in ("fc", "head.fc", "last_linear", "linear") if f"{head}.bias" in tensors]
    if len(heads) != 1:
        what = f"it has no head that {architecture!r} has ({len(heads)} candidates)"
        raise bad_checkpoint(source, what, "Is it the checkpoint of a classifier? Use load_weights for a backbone.")
    bias, kernel = (np.shape(tensors.get(f"{heads[0]}.{leaf}", ())) for leaf in ("bias", "weight"))
    # Before a head is made for them: a file of some bytes may claim classes whose kernel takes all memory.
    if len(bias) != 1 or kernel[:1] != bias or math.prod(kernel) < _LEAST_FEATURES * bias[0]:
        what = f"its head {heads[0]!r} makes no sense: a bias of the shape {bias} and a kernel of {kernel}"
        raise bad_checkpoint(source, what, "Is it the checkpoint of a classifier?")
    return bias[0]
