"""The direction that a block stretches most."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_residual import _backend


def largest_singular_value(function: Any, x: Any, *, steps: int = 12, seed: int = 0) -> float:
    """Returns an estimate, from below, of the largest singular value of a block's Jacobian, by power iteration.

    Range: 0 and above. Dynamical isometry is all of them near 1; a value far above `sqrt(chi)` means that few
    directions carry the gradient. Cost: four passes through the block for each of the `steps`. `J v` is a central
    difference, good to about three digits.

    Args:
        function: The block, from a tensor to a tensor.
        x: What it receives.
        steps: Number of iterations.
        seed: Seed of the first direction.

    Reference:
        Pennington et al., Resurrecting the sigmoid in deep learning through dynamical isometry, 2017.
        https://arxiv.org/abs/1711.04735
    """
    size = float(np.sqrt(np.mean(np.square(_array(x))))) or 1.0
    step = 1e-2 * size * float(np.sqrt(np.prod(x.shape)))
    v = np.random.default_rng(seed).normal(size=tuple(x.shape))
    found = 0.0
    for _ in range(steps):
        v /= np.linalg.norm(v) or 1.0
        there, back = (
            function(x + ops.cast(ops.convert_to_tensor((sign * step * v).astype("float32")), x.dtype))
            for sign in (1, -1)
        )
        forward = (_array(there) - _array(back)) / (2 * step)
        found = float(np.linalg.norm(forward))
        _, pullback = _backend.vjp(function, x)
        v = _array(pullback(ops.cast(ops.convert_to_tensor(forward.astype("float32")), there.dtype))[0])
    return found


def _array(x: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(ops.cast(x, "float32")), "float64")
