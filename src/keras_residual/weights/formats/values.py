"""The numbers of a checkpoint in memory: floats of every width as float32."""

from __future__ import annotations

from typing import Literal

import numpy as np

_OF_NUMPY = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64"
WIDTHS = {"bfloat16": 2, **{name: np.dtype(name).itemsize for name in _OF_NUMPY.split()}}
"""The types that are read: real numbers. In bytes."""


def from_bytes(content: np.ndarray, kind: str, order: Literal["<", ">"] = "<") -> np.ndarray:
    """Returns bytes as a vector of numbers.

    Args:
        content: Bytes, whose number is a multiple of the type's width.
        kind: One of `WIDTHS`.
        order: `"<"` where the least significant byte comes first, else `">"`.
    """
    if kind == "bool":
        return content != 0
    if kind == "bfloat16":  # the upper half of a float32, which NumPy lacks
        return (content.view(f"{order}u2").astype(np.uint32) << 16).view(np.float32)
    return float32(content.view(np.dtype(kind).newbyteorder(order)))


def float32(numbers: np.ndarray) -> np.ndarray:
    """Returns floats as float32, which makes those that are too large infinite, and other numbers as they are."""
    if numbers.dtype.kind != "f":
        return numbers.astype(numbers.dtype.newbyteorder("="), copy=False)
    with np.errstate(over="ignore"):  # `load_weights` tells of values that are not finite
        return numbers.astype(np.float32, copy=False)
