"""The direction that a block stretches most."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_residual import _backend
from keras_residual.xray.quantities.lanczos import first_vectors, lanczos_step, largest_eigenvalue


def largest_singular_value(function: Any, x: Any, *, steps: int = 12) -> float:
    """Returns an estimate, from below, of the largest singular value of a block's Jacobian `J`, by Lanczos on `J' J`.

    Range: 0 and above. Dynamical isometry is all of them near 1; a value far above `sqrt(chi)` means that few
    directions carry the gradient. It is good to about two percent where thousands of singular values are nearly as
    large, and else to the three digits to which `J v` is, a central difference. Cost: four passes through the block
    for each of the `steps`.

    Args:
        function: The block, from a tensor to a tensor.
        x: What it receives.
        steps: Number of Lanczos steps.

    Reference:
        Pennington et al., Resurrecting the sigmoid in deep learning through dynamical isometry, 2017.
        https://arxiv.org/abs/1711.04735
    """
    received: Any = ops.convert_to_numpy(ops.sqrt(ops.mean(ops.square(ops.cast(x, "float32")))))
    size = float(received) or 1.0
    step = 1e-2 * size * float(np.sqrt(np.prod(x.shape)))

    def product(v: list[Any]) -> list[Any]:
        there, back = (function(x + ops.cast(sign * step * v[0], x.dtype)) for sign in (1, -1))
        apart: Any = ops.subtract(ops.cast(there, "float32"), ops.cast(back, "float32"))
        forward = apart / (2 * step)
        _, pullback = _backend.vjp(function, x)
        return [ops.cast(pullback(ops.cast(forward, there.dtype))[0], "float32")]

    before, vector = first_vectors([x.shape])
    diagonal, beside = [], [ops.zeros((), "float32")]
    for _ in range(steps):
        following, entry, length = lanczos_step(product, before, vector, beside[-1])
        before, vector = vector, following
        diagonal.append(entry)
        beside.append(length)
    return max(largest_eigenvalue(ops.stack(diagonal), ops.stack(beside[1:])), 0.0) ** 0.5
