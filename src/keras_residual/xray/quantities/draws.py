"""The X-ray's own random numbers."""

from __future__ import annotations

import numpy as np

SEED = 0x5872_6179


def own_draws(seed: int = 0) -> np.random.Generator:
    """Returns a generator whose numbers are none of the batch's.

    A batch is often drawn with a small seed: a direction drawn with the same one is the first sample, and tells nothing
    of the others. A norm for instance takes out the direction of its own input.

    Args:
        seed: Which of its sequences of numbers, from 0.
    """
    return np.random.default_rng((SEED, seed))
