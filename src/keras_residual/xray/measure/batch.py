"""A batch before a model sees it: its arrays as tensors, their size, what is missing, and what does not vary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual._errors import bad_argument, wrong_type

MOST_ZEROS = 0.05
"""Share of zeros in the columns that vary above which a column of zeros is no surprise."""


def batch_of(owner: str, x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
    """Returns inputs, targets and weights of samples as tensors; Nones stay.

    Args:
        owner: Whose arguments they are.
        x: Inputs.
        y: Targets, or None.
        sample_weight: Weights, or None.
    """
    if y is None and sample_weight is not None:
        raise bad_argument(owner, "y", "the targets of the loss that `sample_weight` weighs", y)
    given = {"x": x, "y": y, "sample_weight": sample_weight}
    found = {name: None if a is None and name != "x" else batch_tensors(owner, name, a) for name, a in given.items()}
    rows = keras.tree.flatten(found["x"])[0].shape[0]
    for name in ("y", "sample_weight"):
        for tensor in keras.tree.flatten(() if found[name] is None else found[name]):
            if tensor.shape[0] != rows:
                rule = f"arrays of {rows} rows, one for each of `x`"
                raise bad_argument(owner, name, rule, tuple(tensor.shape), "The shape is shown.")
    return found["x"], found["y"], found["sample_weight"]


def batch_tensors(owner: str, argument: str, given: Any) -> Any:
    """Returns a batch as tensors, of the precision that Keras computes in.

    Args:
        owner: Whose argument it is.
        argument: Its name.
        given: An array, or a structure of arrays.
    """
    lengths: set[int] = set()

    def convert(array: Any) -> Any:
        if not hasattr(array, "shape"):
            try:
                array = np.asarray(array)
            except ValueError as error:  # rows of different lengths
                raise wrong_type(owner, argument, "an array of numbers, its rows of one length", given) from error
        if not len(array.shape):
            rule = "an array or a tensor with a batch axis, or a structure of these"
            way_out = "Make an array of a list of numbers, and take one batch of a data set."
            raise bad_argument(owner, argument, rule, f"a {type(given).__name__}", way_out)
        if not array.shape[0]:
            raise bad_argument(owner, argument, "a batch of at least one sample", tuple(array.shape))
        if 0 in tuple(array.shape):
            raise bad_argument(owner, argument, "arrays with at least one value a sample", tuple(array.shape))
        lengths.add(int(array.shape[0]))
        if len(lengths) > 1:
            raise bad_argument(owner, argument, "arrays of one batch, all of the same length", sorted(lengths))
        # A model may begin with strings; no loss takes them.
        kind = getattr(array.dtype, "kind", "f") if hasattr(array, "dtype") else "f"
        try:
            if kind in "OUSMm" and argument != "x":
                raise TypeError(f"an array of {array.dtype}")
            tensor: Any = ops.convert_to_tensor(array)
        except (TypeError, ValueError) as error:
            way_out = (
                "Convert it, with np.asarray(…, 'float32') for instance; labels in words by their places in a list."
            )
            received = f"an array of {getattr(array, 'dtype', type(array).__name__)}"
            raise wrong_type(owner, argument, "an array or a tensor of numbers", received, way_out) from error
        double = keras.backend.standardize_dtype(tensor.dtype) == "float64"
        return ops.cast(tensor, keras.config.floatx()) if double else tensor

    if isinstance(given, Sequence) and not isinstance(given, (list, tuple)):
        raise wrong_type(owner, argument, "an array, a tensor, or a structure of these", given)
    tensors = keras.tree.map_structure(convert, given)
    if not lengths:
        raise bad_argument(owner, argument, "a batch of at least one array", given)
    return tensors


def given_of(x: Any, y: Any, sample_weight: Any) -> tuple[Any, ...]:
    """Returns a batch as programs take it: inputs, and as far as there are any, targets and weights of the samples."""
    return (x,) if y is None else (x, y) if sample_weight is None else (x, y, sample_weight)


def arrays_of(structure: Any, word: str) -> list[dict[str, Any]]:
    """Returns what is known of each array of a batch.

    Args:
        structure: A tensor or a structure of tensors; None for nothing.
        word: What they are, for their names: `"input"` is that of a single one, `"input 'a'"` that of one of several.
    """
    if structure is None:
        return []
    paths = keras.tree.flatten_with_path(structure)
    named = [(f"{word} {'.'.join(map(str, path))!r}" if path else word, tensor) for path, tensor in paths]
    return [_facts(name, tensor) for name, tensor in named]


def _facts(name: str, tensor: Any) -> dict[str, Any]:
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    floats = keras.backend.is_float_dtype(dtype)
    array = np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32") if floats else tensor))
    rows = array.reshape(len(array), -1)
    found: dict[str, Any] = {"name": name, "shape": list(array.shape), "dtype": dtype}
    sound = np.isfinite(rows) if floats else np.ones(rows.shape, bool)
    found |= {
        "missing": int((~sound.all(axis=1)).sum()),
        "missing_share": float(1 - sound.mean()) if rows.size else 0.0,
        "nan": bool(floats and np.isnan(rows).any()),
        "same": bool((rows == rows[:1]).all()),
        "different": len({row.tobytes() for row in rows}),
    }
    if not rows.size or array.dtype.kind not in "fiu":
        return {**found, "rms": 0.0, "picture": False, "channels": 0, "constant": []}
    values = np.where(sound, rows, 0).astype("float32")
    lowest, highest = float(values.min()), float(values.max())
    whole = not floats or bool((values == np.round(values)).all())
    with np.errstate(over="ignore"):
        rms = float(np.sqrt(np.mean(np.square(values))))
    channels = array.shape[_channel_axis(array)] if array.ndim > 1 else 1
    return {
        **found,
        "rms": rms,
        "picture": array.ndim > 2 and whole and lowest >= 0 and 1 < highest <= 255,
        "channels": int(channels),
        # Whole numbers in a row or a sequence are counts or tokens, which may well be the same in a batch.
        "constant": _constant(array, whole) if floats or array.ndim > 3 else [],
    }


def _channel_axis(array: np.ndarray) -> int:
    return 1 if array.ndim > 3 and keras.config.image_data_format() == "channels_first" else -1


def _constant(array: np.ndarray, whole: bool) -> list[int]:
    """Returns the columns or channels with one value for all samples and places.

    Columns of zeros count where the others have next to none: else they are the rim of pictures, or rare categories.
    """
    if array.ndim < 2:
        return []
    columns = np.moveaxis(array, _channel_axis(array), -1).reshape(-1, array.shape[_channel_axis(array)])
    same = (columns == columns[:1]).all(axis=0)
    varied = columns[:, ~same]
    sparse = whole or not varied.size or float((varied == 0).mean()) > MOST_ZEROS
    found = same & (columns[0] != 0) if sparse else same
    # All of them: that is a batch of equal samples, or one of few channels.
    return [] if found.all() else [int(index) for index in np.flatnonzero(found)]
