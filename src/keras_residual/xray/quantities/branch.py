"""What a branch adds, against what it adds it to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_residual.xray.quantities.signal import power


def branch_ratio(received: Any, added: Any) -> Any:
    """Returns `rms(F(x)) / rms(x)`; 0 where nothing is added.

    Range: 0 and above. Healthy at initialisation: `1 / sqrt(l)` at block `l` of a pre-norm net, the scale's initial
    value for LayerScale, 0 for ReZero. In a trained net a tail below 0.01 means depth that is not used; far above 1
    the block overwrites the stream.

    Args:
        received: What the block receives, `x`.
        added: What its branch adds, `F(x)` with every scale on it. The shapes may differ, as with a concatenation.

    Reference:
        Sun et al., The Curse of Depth in Large Language Models, 2025. https://arxiv.org/abs/2502.05795
    """
    below: Any = ops.sqrt(power(received))
    above: Any = ops.sqrt(power(added))
    return above / ops.where(below > 0, below, ops.ones_like(below))


def branch_cosine(received: Any, added: Any) -> Any:
    """Returns the cosine of the angle between `x` and `F(x)`, each taken as one vector; 0 where one of them is zero.

    Range: -1 to 1. Near 0: the branch writes something new; far below 0: it erases what is there.

    Args:
        received: What the block receives, `x`.
        added: What its branch adds, of the same shape.
    """
    one: Any = ops.cast(received, "float32")
    other: Any = ops.cast(added, "float32")
    below = power(one) ** 0.5 * power(other) ** 0.5
    together: Any = ops.mean(one * other)
    return together / ops.where(below > 0, below, ops.ones_like(below))


def shares(powers: Sequence[float]) -> list[float]:
    """Returns each branch's part of what all branches add: `||F_l||^2 / sum_k ||F_k||^2`.

    Range: 0 to 1; they add up to 1, unless all are zero. Healthy: the same order of magnitude within a stage.

    Args:
        powers: Mean square of what each branch adds, times its number of entries.
    """
    values = np.asarray(powers, "float64")
    total = values.sum()
    with np.errstate(invalid="ignore"):  # what has overflowed is not a number of parts
        return [float(value) for value in (values / total if total else values)]
