"""How much a block stretches what goes through it: the mean square of its Jacobian's singular values."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_residual import _backend
from keras_residual.xray.quantities.draws import own_draws


def chi(
    function: Any, x: Any, *, skip: float | None = None, draws: int = 4, seed: int = 0
) -> tuple[float, float | None]:
    """Returns `||J||_F^2 / n` and, where the block is a sum, the gain of its branch, `||J - skip I||_F / sqrt(n)`.

    Range: 0 and above. Critical: about 1 each; above, the signal and the gradient grow from block to block (chaos),
    below they die out (order); ReZero begins with exactly 1. Cost: `draws` passes through the block and
    back. The estimate is Hutchinson's, `E ||J' u||^2` for `u` of unit normal entries.

    Args:
        function: The block, from a tensor to a tensor.
        x: What it receives.
        skip: Factor on an identity shortcut; None where there is none.
        draws: Number of random vectors.
        seed: Seed of these.

    Reference:
        Poole et al., Exponential expressivity in deep neural networks through transient chaos, 2016.
        https://arxiv.org/abs/1606.05340
        Hutchinson, A stochastic estimator of the trace of the influence matrix, 1990.
    """
    rng = own_draws(seed)
    size = float(np.prod(x.shape))
    whole, branch = [], []
    for _ in range(draws):
        y, pullback = _backend.vjp(function, x)  # a pullback serves once: what it needs is gone then
        u = ops.cast(ops.convert_to_tensor(rng.normal(size=tuple(y.shape)).astype("float32")), y.dtype)
        back = np.asarray(ops.convert_to_numpy(ops.cast(pullback(u)[0], "float32")), "float64")
        whole.append((back**2).sum() / size)
        if skip is not None and tuple(y.shape) == tuple(x.shape):
            straight = np.asarray(ops.convert_to_numpy(ops.cast(u, "float32")), "float64")
            branch.append(((back - skip * straight) ** 2).sum() / size)
    return float(np.mean(whole)), float(np.mean(branch)) ** 0.5 if branch else None
