"""What a batch is before a model sees it: its size, what is missing in it, and what does not vary."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

MOST_ZEROS = 0.05
"""Share of zeros in the columns that vary above which a column of zeros is no surprise."""


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
