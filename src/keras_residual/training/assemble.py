"""The whole model from raw inputs to answers in the data's units, around a network that sees standardised numbers.

The numbers of a table, and targets that are numbers, are standardised in double precision, outside of any backend: two
Unix times that differ by less than two minutes are one 32-bit float. The model that is saved does the same in single
precision, for whoever uses it by Keras alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_residual._errors import bad_argument, bad_data, shown
from keras_residual.data.dataset import Dataset
from keras_residual.data.lazy import Inputs, LazyExamples, parts
from keras_residual.models.registry import create_model, resolve
from keras_residual.training.config import ModelConfig, settled

# Of the layers that make the saved model of the network.
_STANDARDISE, _SMALL_UNITS, _TARGET_UNITS = "standardise", "small_units", "target_units"
# Keras divides by the deviation or by 1e-7, whichever is larger, and holds its square in single precision.
_SMALL, _SMALLEST = 1e-6, 1e-18
_ENOUGH_PICTURES = 10_000


@dataclass(frozen=True, kw_only=True)
class Standardised:
    """A network, and what makes its inputs of raw numbers and its outputs the data's.

    Args:
        network: From standardised rows of a table, or raw pictures, to logits or the standardised target.
        columns: Mean and deviation of each column, both of shape `(features,)`, the deviation 1 where a column does not
            vary; None for pictures, which the network standardises itself.
        target_mean: Mean of the training targets; 0 for classes.
        target_scale: Their standard deviation; 1 for classes.
    """

    network: keras.Model
    columns: tuple[np.ndarray, np.ndarray] | None = None
    target_mean: float = 0.0
    target_scale: float = 1.0

    def inputs(self, x: Inputs) -> Inputs:
        """Returns what the network takes: rows as float32 of mean 0 and deviation 1, pictures as they are."""
        if self.columns is None:
            return x
        mean, deviation = self.columns
        return standardised(x, mean, deviation)

    def targets(self, y: np.ndarray) -> np.ndarray:
        """Returns what the network is to answer: class indices as they are, numbers of mean 0 and deviation 1."""
        return (y - self.target_mean) / self.target_scale if y.dtype.kind == "f" else y

    def answers(self, outputs: np.ndarray) -> np.ndarray:
        """Returns the network's outputs in the data's units, float64."""
        return outputs.astype(np.float64) * self.target_scale + self.target_mean


@dataclass(frozen=True, kw_only=True)
class Assembled(Standardised):
    """A network and the whole model around it, which share their layers.

    Args:
        raw: From raw inputs to logits, or to the target in its own units: what is saved.
        body: The network of the catalogue within; None where it is another one.
    """

    raw: keras.Model
    body: keras.Model | None = None


def assemble(
    config: ModelConfig, dataset: Dataset, rows: np.ndarray, *, any_size: bool = False, execution: str | None = None
) -> Assembled:
    """Builds the models.

    Args:
        config: Which network, and what pictures are standardised by, if it is not the training pictures.
        dataset: What it is to learn.
        rows: Places of the training examples from which the standardisation comes.
        any_size: Whether the network is to take pictures of any height and width; what is saved takes the data's.
        execution: As `create_model` takes it.

    Raises:
        ValueError: If a column varies, but by too little to be standardised in single precision, or a mean is not one
            number a channel.
    """
    x, y = dataset.x_train, dataset.y_train
    pictures = dataset.kind == "pictures"
    mean, deviation = _set_moments(config, x.shape[-1]) if pictures and config.mean else moments(x, rows)
    _check_deviation(deviation, dataset)
    inputs = whole = keras.Input(shape=x.shape[1:], name="inputs")
    if pictures and config.crop is not None:
        over = [(side - config.crop) for side in x.shape[1:3]]
        margins = tuple((edge // 2, edge - edge // 2) for edge in over)
        whole = keras.layers.Cropping2D(margins, data_format="channels_last", name="middle")(inputs)
    small = deviation < _SMALL
    variance = np.where(small, 1.0, deviation**2)
    first: list[keras.Layer] = [keras.layers.Normalization(axis=-1, mean=mean, variance=variance, name=_STANDARDISE)]
    if small.any():
        factor = np.where(small, 1 / deviation, 1.0)
        first.append(
            keras.layers.Normalization(
                axis=-1, mean=np.zeros_like(mean), variance=factor**2, invert=True, name=_SMALL_UNITS
            )
        )
    if pictures and keras.config.image_data_format() == "channels_first":
        first.append(keras.layers.Permute((3, 1, 2), name="channels_first"))

    def prepared(tensor: Any) -> Any:
        for layer in first:
            tensor = layer(tensor)
        return tensor

    seen = keras.Input(shape=(None, None, x.shape[-1]), name="inputs_of_any_size") if any_size else whole
    hidden = prepared(seen)
    with _precision(config.precision):
        network = create_model(
            resolve(config.name)[0],
            input_shape=tuple(hidden.shape[1:]),
            num_classes=len(dataset.classes) or 1,
            drop_path_rate=settled(config.drop_path_rate),
            dropout_rate=config.dropout_rate,
            execution=execution,
        )
    outputs = network(prepared(whole) if any_size else hidden)
    target_mean, target_scale = 0.0, 1.0
    if not dataset.classes:
        target_mean, target_scale = (float(value[0]) for value in moments(y[:, None], rows))
        units = keras.layers.Rescaling(scale=target_scale, offset=target_mean, name=_TARGET_UNITS)
        raw = keras.Model(inputs, units(outputs))
    else:
        raw = keras.Model(inputs, outputs)
    # Two models even for classes: only the network is compiled, so the raw one is saved without an optimizer.
    learner, columns = keras.Model(seen if any_size else inputs, network(hidden) if any_size else outputs), None
    if dataset.kind == "table":
        numbers = keras.Input(shape=x.shape[1:], name="standardised")
        learner, columns = keras.Model(numbers, network(numbers)), (mean, deviation)
    return Assembled(
        raw=raw, network=learner, columns=columns, target_mean=target_mean, target_scale=target_scale, body=network
    )  # fmt: skip


@contextmanager
def _precision(precision: str) -> Iterator[None]:
    """Within it layers are made to compute in a precision, and to keep 32-bit floats."""
    if precision == "float32":  # what Keras is set to
        yield
        return
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(f"mixed_{precision}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def take_apart(model: keras.Model) -> Standardised:
    """Returns the network of a saved model and its standardisation, in the precision in which it is written down.

    A model that `assemble` has not made is all network.
    """
    if not isinstance(model, keras.Model):  # one that was exported
        return Standardised(network=model)
    layers = {layer.name: layer for layer in model.layers}
    standardise, units = layers.get(_STANDARDISE), layers.get(_TARGET_UNITS)
    table = len(model.inputs) == 1 and len(model.inputs[0].shape) == 2
    if not table or not isinstance(standardise, keras.layers.Normalization) or standardise.input_mean is None:
        return Standardised(network=model)
    mean, deviation = (np.array(value, np.float64) for value in (standardise.input_mean, standardise.input_variance))
    deviation = np.sqrt(deviation)
    first, last, target_mean, target_scale = standardise.output, model.output, 0.0, 1.0
    small = layers.get(_SMALL_UNITS)
    if isinstance(small, keras.layers.Normalization):
        deviation = deviation / np.sqrt(np.array(small.input_variance, np.float64))
        first = small.output
    if isinstance(units, keras.layers.Rescaling):
        target_mean, target_scale = float(units.offset), float(units.scale)
        last = units.input
    return Standardised(
        network=keras.Model(first, last), columns=(mean, deviation), target_mean=target_mean, target_scale=target_scale
    )


def moments(x: Inputs, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation of the last axis, in float64; the deviation is 1 where nothing varies.

    Args:
        x: Examples of any shape and type; they are not copied. Of pictures that are read when they are asked for it is
            some thousands, evenly spread.
        rows: Places of the examples that count; by default all.
    """
    rows = np.arange(len(x)) if rows is None else rows
    axes = tuple(range(x.ndim - 1))
    if isinstance(x, LazyExamples) and x.ndim > 2:
        rows = rows[:: -(-len(rows) // _ENOUGH_PICTURES)]
    if x.dtype == np.uint8:
        return _moments_of_bytes(x, rows)
    # Differences to some example of the set are exact or nearly so; the sum of large numbers would not be, and a column
    # of one number would vary by its rounding.
    start = x[rows[0]].reshape(-1, x.shape[-1])[0].astype(np.float64)
    count = len(rows) * (x[0].size // x.shape[-1])
    mean = start + sum(np.sum(part - start, axis=axes, dtype=np.float64) for part in parts(x, rows)) / count
    squares = sum(np.sum(np.square(part - mean, dtype=np.float64), axis=axes) for part in parts(x, rows)) / count
    deviation = np.sqrt(squares)
    return mean, np.where(deviation > 0, deviation, 1.0)


def standardised(x: Inputs, mean: np.ndarray, deviation: np.ndarray, *, flat: bool = False) -> Inputs:
    """Returns examples as float32 with mean 0 and deviation 1 along the last axis, computed in float64.

    Args:
        x: The examples; those that are read when they are asked for are standardised then.
        mean: Mean of the last axis.
        deviation: Its standard deviation.
        flat: Whether an example becomes a vector.
    """

    def of_array(x: np.ndarray) -> np.ndarray:
        result = np.empty(x.shape, np.float32)
        start = 0
        for part in parts(x):
            with np.errstate(over="ignore"):  # of a number that is nothing like those that were trained on
                result[start : start + len(part)] = (part - mean) / deviation
            start += len(part)
        return result.reshape(len(x), *shape)

    shape = (math.prod(x.shape[1:]),) if flat else x.shape[1:]
    return x.map(of_array, np.float32, shape) if isinstance(x, LazyExamples) else of_array(x)


def _moments_of_bytes(x: Inputs, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns what `moments` does, exactly, and reads each picture once: how often each of 256 values is says all."""
    channels = x.shape[-1]
    counts = np.zeros((channels, 256), np.int64)
    for part in parts(x, rows):
        for channel in range(channels):
            counts[channel] += np.bincount(part[..., channel].reshape(-1), minlength=256)
    values = np.arange(256.0)
    mean = counts @ values / counts.sum(axis=1)
    deviation = np.sqrt((counts * np.square(values - mean[:, None])).sum(axis=1) / counts.sum(axis=1))
    return mean, np.where(deviation > 0, deviation, 1.0)


def _set_moments(config: ModelConfig, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and deviation of pixels 0..255 that are set; of grey pictures those of all colours together."""
    found = [np.array(values, np.float64) for values in (config.mean, config.std)]
    if channels == 1:
        found = [values.mean(keepdims=True) if len(values) else values for values in found]
    for name, values in zip(("mean", "std"), found, strict=True):
        if len(values) != channels:
            rule = f"{channels} number{'s' if channels > 1 else ''}, one a channel"
            raise bad_argument("TrainConfig", f"model.{name}", rule, getattr(config, name))
    return 255 * found[0], 255 * found[1]


def _check_deviation(deviation: np.ndarray, dataset: Dataset) -> None:
    tiny = np.flatnonzero(deviation < _SMALLEST)
    if len(tiny):
        name = shown(dataset.features[tiny[0]])
        raise bad_data(
            f"Data {shown(dataset.name)}", f"column {name} varies by {deviation[tiny[0]]:.1e}, too little for the "
            "32-bit floats of a model", "Multiply it by a power of ten.",
        )  # fmt: skip
