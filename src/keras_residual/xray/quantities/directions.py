"""Random directions, and the largest eigenvalue of a map that is known by its products with vectors alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

SEED = 0x5872_6179

Vector = list[Any]
"""Float32 tensors of any shapes, taken for one long vector."""


def own_draws(seed: int = 0) -> np.random.Generator:
    """Returns a generator whose numbers are none of the batch's.

    A batch is often drawn with a small seed: a direction drawn with the same one is the first sample, and tells nothing
    of the others. A norm for instance takes out the direction of its own input.

    Args:
        seed: Which of its sequences of numbers, from 0.
    """
    return np.random.default_rng((SEED, seed))


def random_component(outputs: Any) -> Any:
    """Returns the mean over the samples of `<r, output> / sqrt(size)`, with `r` drawn once from a normal distribution.

    Args:
        outputs: Structure of tensors, the batch first.
    """
    rng = own_draws()
    total: Any = ops.zeros((), "float32")
    for output in keras.tree.flatten(outputs):
        if output is None or not keras.backend.is_float_dtype(keras.backend.standardize_dtype(output.dtype)):
            continue
        direction = rng.normal(size=tuple(output.shape)).astype("float32")
        size = max(direction.size // max(direction.shape[0], 1), 1)
        weighted: Any = ops.cast(output, "float32")
        weighted = weighted * ops.convert_to_tensor(direction)
        total = total + ops.sum(weighted) / (direction.shape[0] * size**0.5)
    return total


def first_vectors(shapes: Sequence[Sequence[int]], seed: int = 0) -> tuple[Vector, Vector]:
    """Returns what the first step takes: zeros, and a random vector of length 1.

    Args:
        shapes: Those of the tensors of a vector.
        seed: Seed of the draws.
    """
    rng = own_draws(seed)
    drawn = [rng.normal(size=tuple(shape)) for shape in shapes]
    length = np.sqrt(sum(np.square(part).sum() for part in drawn)) or 1.0
    return [ops.zeros(part.shape) for part in drawn], [ops.convert_to_tensor(p / length, "float32") for p in drawn]


def lanczos_step(
    product: Callable[[Vector], Vector], before: Vector, vector: Vector, beside: Any
) -> tuple[Vector, Any, Any]:
    """Returns the next vector, and the next entry on the diagonal and beside it: `b' v' = A v - a v - b v_before`.

    Args:
        product: From a vector to that of the map with it.
        before: The vector before.
        vector: A vector of length 1.
        beside: `b` of the step before; 0 at first.

    Reference:
        Lanczos, An iteration method for the solution of the eigenvalue problem of linear differential and integral
        operators, 1950.
    """
    image = product(vector)
    entry = _inner(vector, image)
    rest = [part - entry * v - beside * b for part, v, b in zip(image, vector, before, strict=True)]
    length: Any = ops.sqrt(_inner(rest, rest))
    following = [part / ops.where(length > 0, length, ops.ones_like(length)) for part in rest]
    return following, entry, length


def largest_eigenvalue(diagonal: Any, beside: Any) -> float:
    """Returns the eigenvalue of the tridiagonal matrix that is largest in size; not a number where an entry is none.

    It is that of the map, from below, up to rounding. The vectors lose their right angles once it is found, which
    repeats eigenvalues and adds none that are larger (Paige 1976), so that earlier vectors need not be kept.

    Args:
        diagonal: `a` of each step.
        beside: `b` of each step.
    """
    a, b = (np.asarray(ops.convert_to_numpy(entries), "float64") for entries in (diagonal, beside))
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("nan")
    values = np.linalg.eigvalsh(np.diag(a) + np.diag(b[:-1], 1) + np.diag(b[:-1], -1))
    return float(values[np.abs(values).argmax()])


def _inner(one: Vector, other: Vector) -> Any:
    parts: list[Any] = [ops.sum(a * b) for a, b in zip(one, other, strict=True)]
    return sum(parts[1:], start=parts[0])
