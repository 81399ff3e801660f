"""The largest curvature of the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_residual import _backend

STEPS = 12


def sharpness(loss_of: Callable[[list[Any]], Any], weights: Sequence[Any], *, steps: int = STEPS, seed: int = 0) -> Any:
    """Returns an estimate of the eigenvalue of the loss's Hessian that is largest in size, by power iteration.

    Range: any number. Gradient descent with a learning rate `r` is stable below `2 / r`. `H v` is a central
    difference of gradients, good to about three digits. Cost: two passes forward and back for each of the `steps`.

    Args:
        loss_of: From a list of tensors, the weights, to a scalar.
        weights: The weights, float tensors.
        steps: Number of iterations.
        seed: Seed of the first direction.

    Returns:
        A scalar in float32.

    Reference:
        Cohen et al., Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability, 2021.
        https://arxiv.org/abs/2103.00065
        Yao et al., PyHessian, 2020. https://arxiv.org/abs/1912.07145
    """
    rng = np.random.default_rng(seed)
    weights = [ops.cast(weight, "float32") for weight in weights]
    first = [ops.convert_to_tensor(rng.normal(size=tuple(weight.shape)).astype("float32")) for weight in weights]
    size: Any = ops.sqrt(_inner(weights, weights))
    step: Any = ops.where(size > 0, size, ops.ones_like(size))
    step = 1e-3 * step

    def gradient(v: list[Any], sign: float) -> list[Any]:
        moved = [weight + sign * step * part for weight, part in zip(weights, v, strict=True)]
        loss, pullback = _backend.vjp(loss_of, moved)
        return pullback(ops.ones_like(loss))[0]

    def body(v: Any, _: Any, __: Any) -> tuple[Any, tuple[Any]]:
        norm: Any = ops.sqrt(_inner(v, v))
        v = [part / ops.where(norm > 0, norm, ops.ones_like(norm)) for part in v]
        ends = zip(gradient(v, 1.0), gradient(v, -1.0), strict=True)
        image = [(there - back) / (2 * step) for there, back in ends]
        return image, (_inner(v, image),)

    _, (values,) = _backend.scan(body, first, (ops.zeros((steps,), "float32"),))
    return values[-1]


def _inner(one: Sequence[Any], other: Sequence[Any]) -> Any:
    parts: list[Any] = [ops.sum(a * b) for a, b in zip(one, other, strict=True)]
    return sum(parts[1:], start=parts[0])
