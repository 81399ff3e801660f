"""Preprocessing of pictures of any size for a network: resize, crop, scale and standardise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual._arguments import choice, number, owner_of, positive, whole_number
from keras_residual._errors import bad_argument, wrong_type
from keras_residual._types import Shape
from keras_residual.models.facts import pretrained_weights
from keras_residual.models.resampling import (
    CROP_MODES,
    INTERPOLATIONS,
    height_first,
    inside,
    resampling_matrix,
    resized_size,
    split_weights,
)
from keras_residual.residual.configured import Configured
from keras_residual.residual.serialization import register

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@register
class Preprocessing(Configured):
    """Prepares pictures with values 0..255 for a network: resizes, crops the centre, and standardises.

    A picture is resized with antialiasing to `floor(size / crop_pct)`, cropped to `size` at its centre, divided by 255,
    and becomes `(x - mean) / std`. Before the division each pixel is the integer that Pillow computes for an 8-bit
    picture, with which published accuracies were measured. The gradient ignores the rounding.

    Args:
        size: Height and width of the output: a number, or a pair.
        crop_pct: Share of the resized picture that the crop keeps along an edge, in `(0, 1]`.
        interpolation: `"bilinear"` or `"bicubic"`.
        mean: Mean of each channel, for values 0..1.
        std: Standard deviation of each channel, above 0, for values 0..1.
        crop_mode: `"center"` resizes by the shorter edge and crops the longer one, `"squash"` ignores the aspect ratio,
            `"border"` resizes by the longer edge and pads with the mean.
        data_format: `"channels_last"` or `"channels_first"` of the output; `None` for
            `keras.config.image_data_format()`.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.

    Call arguments:
        inputs: Pictures with values 0..255, whole numbers or floats, of shape `(batch, height, width, channels)`, or
            one of shape `(height, width, channels)`. Channels are last whatever `data_format` says. Height and width
            must be known, and may differ from call to call.

    Output shape:
        `(batch, *size, channels)` or `(batch, channels, *size)`, without the batch for one picture.

    Raises:
        ValueError: If an argument is out of range, the number of channels is not that of `mean`, or the size of the
            pictures is unknown.

    Example:
        >>> import numpy as np
        >>> from keras_residual.models.preprocessing import Preprocessing
        >>> Preprocessing(224, crop_pct=0.95, interpolation="bicubic")(np.zeros((375, 500, 3), "uint8")).shape
        (224, 224, 3)
    """

    def __init__(
        self,
        size: int | Sequence[int],
        *,
        crop_pct: float = 0.875,
        interpolation: str = "bilinear",
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        crop_mode: str = "center",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        # Keras would cast pictures to the compute dtype, in which half precision would round fractions.
        super().__init__(autocast=False, **kwargs)
        owner = owner_of(self)
        self.size = _pair(owner, "size", size)
        self.crop_pct = number(owner, "crop_pct", crop_pct, "a share in (0, 1]", lambda v: 0 < v <= 1)
        self.interpolation = choice(owner, "interpolation", interpolation, INTERPOLATIONS)
        self.mean = _by_channel(owner, "mean", mean)
        self.std = _by_channel(owner, "std", std)
        for value in self.std:
            positive(owner, "std", value)
        if len(self.std) != len(self.mean):
            raise bad_argument(owner, "std", f"one number a channel, {len(self.mean)} as `mean` has", std)
        self.crop_mode = choice(owner, "crop_mode", crop_mode, CROP_MODES)
        data_format = keras.config.image_data_format() if data_format is None else data_format
        self.data_format = choice(owner, "data_format", data_format, ("channels_last", "channels_first"))

    def build(self, input_shape: Shape) -> None:
        """Checks the shape; the layer has no weights."""
        self._picture_size(input_shape)

    def call(self, inputs: Any) -> Any:
        """Resizes, crops, scales and standardises."""
        passes, padding = self._plan(self._picture_size(inputs.shape))
        # Half precision cannot hold sums of 8-bit pixels.
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        x: Any = ops.transpose(inputs, (0, 3, 1, 2) if len(inputs.shape) == 4 else (2, 0, 1))
        x = ops.cast(x, dtype)
        for edge, matrix in passes:
            x = _eight_bits(*(_along(edge, ops.convert_to_tensor(part, dtype), x) for part in split_weights(matrix)))
        x = x + ops.convert_to_tensor(padding, dtype)
        mean, std = (ops.convert_to_tensor(np.reshape(v, (-1, 1, 1)), dtype) for v in (self.mean, self.std))
        x = (x / 255 - mean) / std
        if self.data_format == "channels_last":
            x = ops.transpose(x, (0, 2, 3, 1) if len(inputs.shape) == 4 else (1, 2, 0))
        return ops.cast(x, self.compute_dtype)

    def prepare(self, pictures: Any) -> np.ndarray:
        """Returns the layer's output, computed by NumPy.

        For pictures of many sizes, for each of which a backend might compile, and for the workers of a data loader.

        Args:
            pictures: An array, as the layer takes it.

        Returns:
            float32 of the layer's output shape.
        """
        pictures = np.asarray(pictures)
        passes, padding = self._plan(self._picture_size(pictures.shape))
        x = np.moveaxis(pictures, -1, -3).astype(np.float64)
        for edge, matrix in passes:
            weights = matrix.astype(np.float64)
            x = x @ weights.T if edge == "width" else weights @ x
            x = np.clip(np.floor(x + 0.5), 0, 255)
        x = ((x + padding) / 255 - np.reshape(self.mean, (-1, 1, 1))) / np.reshape(self.std, (-1, 1, 1))
        x = x.astype(np.float32)
        return np.moveaxis(x, -3, -1) if self.data_format == "channels_last" else x

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the shape of the output."""
        self._picture_size(input_shape)
        channels = (len(self.mean),)
        picture = (*self.size, *channels) if self.data_format == "channels_last" else (*channels, *self.size)
        return (*input_shape[:-3], *picture)

    def _plan(self, picture: tuple[int, int]) -> tuple[list[tuple[str, np.ndarray]], np.ndarray]:
        """Returns the steps for pictures of a given height and width.

        Returns:
            `"width"` and `"height"`, each with its matrix, in their order, and what to add afterwards, 0..255 of shape
            `(channels, height, width)`: 0 except outside the picture, which only `"border"` leaves.
        """
        resized = resized_size(picture, self.size, self.crop_pct, self.crop_mode)
        edges = zip(("height", "width"), picture, resized, self.size, strict=True)
        passes = [(name, resampling_matrix(*lengths, self.interpolation)) for name, *lengths in edges]
        if not height_first(picture, resized):
            passes.reverse()
        there = np.outer(*(inside(*edge) for edge in zip(resized, self.size, strict=True)))
        fill = [round(255 * mean) for mean in self.mean]
        return passes, np.reshape(fill, (-1, 1, 1)) * ~there

    def _picture_size(self, shape: Shape) -> tuple[int, int]:
        """Returns the height and width of the pictures; raises if the shape is unsuitable."""
        owner, form = owner_of(self), "(height, width, channels) with or without a batch before it"
        shape = tuple(shape)
        if len(shape) not in (3, 4):
            raise bad_argument(owner, "inputs", f"of shape {form}", shape)
        if shape[-1] != len(self.mean):
            raise bad_argument(
                owner,
                "inputs",
                f"pictures of {len(self.mean)} channels, the last axis",
                shape,
                "Grey pictures become coloured ones by `keras.ops.repeat(x, 3, axis=-1)`.",
            )
        height, width = shape[-3:-1]
        if not height or not width:
            raise bad_argument(
                owner,
                "inputs",
                "pictures of known height and width",
                shape,
                "Call the layer's `prepare` with each picture as an array, before the model, or bring the pictures "
                "to one size first.",
            )
        return height, width


def preprocessing(
    name: str,
    *,
    input_size: int | Sequence[int] | None = None,
    test: bool = False,
    data_format: str | None = None,
) -> Preprocessing:
    """Returns the layer that prepares pictures with values 0..255 for a set of pretrained weights.

    Args:
        name: Weights, as `pretrained_weights` takes them: `"resnet50.a1_in1k"`, or `"resnet50"` for its default ones.
        input_size: Height and width instead of those of the weights: a number, or a pair.
        test: Whether to use the size and crop at which the weights do best, `test_input_size` and `test_crop_pct`,
            which cost more time. By default those of their training.
        data_format: As `Preprocessing` takes it.

    Raises:
        ValueError: If the name has no pretrained weights; `Preprocessing` takes size, mean and deviation directly.

    Example:
        >>> layer = preprocessing("resnet50.a1_in1k")
        >>> layer.size, layer.crop_pct, layer.interpolation
        ((224, 224), 0.95, 'bicubic')
        >>> layer = preprocessing("resnet50.a1_in1k", test=True)
        >>> layer.size, layer.crop_pct
        ((288, 288), 1.0)
    """
    weights = pretrained_weights(name)
    own = weights.test_input_size if test else weights.input_size
    return Preprocessing(
        own if input_size is None else _pair("preprocessing", "input_size", input_size),
        crop_pct=weights.test_crop_pct if test else weights.crop_pct,
        interpolation=weights.interpolation,
        mean=weights.mean,
        std=weights.std,
        crop_mode=weights.crop_mode,
        data_format=data_format,
    )


def _along(edge: str, matrix: Any, x: Any) -> Any:
    """Returns the products of a matrix with the rows or the columns of `x`, of shape `(…, height, width)`."""
    return ops.matmul(x, ops.transpose(matrix)) if edge == "width" else ops.matmul(matrix, x)


def _eight_bits(coarse: Any, fine: Any) -> Any:
    """Returns the sum of the two rounded, halves upwards, and clipped to 0..255, as Pillow does after each edge.

    The result is exact for integers, although the sum itself would need more than 24 bits.
    """
    nearest: Any = ops.floor(coarse + 0.5)
    whole = nearest + ops.floor((coarse - nearest) + fine + 0.5)
    # Rounding has a gradient of 0; this has the gradient without it.
    smooth: Any = ops.clip(coarse + fine, 0, 255)
    return smooth + ops.stop_gradient(ops.clip(whole, 0, 255) - smooth)


def _pair(owner: str, argument: str, value: Any) -> tuple[int, int]:
    if not isinstance(value, (list, tuple)):
        value = (value, value)
    if len(value) != 2:
        raise bad_argument(owner, argument, "a whole number, or height and width", value)
    return whole_number(owner, argument, value[0]), whole_number(owner, argument, value[1])


def _by_channel(owner: str, argument: str, value: Any) -> tuple[float, ...]:
    rule = "one number a channel"
    if not isinstance(value, (list, tuple)):
        raise wrong_type(owner, argument, rule, value)
    if not value:
        raise bad_argument(owner, argument, rule, value)
    return tuple(number(owner, argument, item, rule) for item in value)
