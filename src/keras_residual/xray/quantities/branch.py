"""What a branch adds, against what it adds it to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_residual.xray.quantities.chart import DepthChart
from keras_residual.xray.quantities.numerics import underflow_share
from keras_residual.xray.quantities.quantity import Quantity
from keras_residual.xray.quantities.signal import power, variance


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


def _cosine_of_sum(received: Any, added: Any, channel_axis: int) -> Any:
    alike = tuple(added.shape) == tuple(getattr(received, "shape", ()))
    return branch_cosine(received, added) if alike else None


BRANCH_RATIO = Quantity(
    key="branch_ratio",
    definition="root mean square of `F` over that of what it is added to",
    of="branch",
    by=lambda received, added, channel_axis: branch_ratio(received, added),
    label="adds, compared to what it gets",
    column="branch/skip",
    history=True,
    tensorboard=True,
    chart=DepthChart(
        title="How much does each block add?",
        words="A residual block adds something to what it gets. This is the size of what it adds, divided by the size "
        "of what it gets. At 1 both are equal; near 0 the block does next to nothing; far above 1 it drowns what came "
        "before. Many blocks below 0.01 at the right end are depth that is paid for and not used. An exact 0 (a "
        "triangle at the bottom) is how blocks with a learned scale begin.",
        axis="added / received",
        log=True,
        neutral=1.0,
    ),
)

BRANCH_COSINE = Quantity(
    key="branch_cosine",
    definition="cosine between `F` and what it is added to: 0 is new, −1 erases",
    of="branch",
    by=_cosine_of_sum,
    sums_only=True,
    label="direction of what it adds",
    column="cosine",
    tensorboard=True,
    chart=DepthChart(
        title="Does it write something new, or erase?",
        words="The direction of what a block adds, compared with what it gets. Around 0 it writes something new. Near "
        "1 it only makes larger what is there, near -1 it erases what is there.",
        axis="cosine",
        neutral=0.0,
        domain=(-1.0, 1.0),
    ),
)

SHARE = Quantity(
    key="share",
    definition="sum of squares of `F` over that of all branches",
    of="branch",
    by=lambda received, added, channel_axis: power(added),
    across=lambda powers, sizes: shares([power * size for power, size in zip(powers, sizes, strict=True)]),
    label="share of all that is added",
    column="share",
    percent=True,
    chart=DepthChart(
        title="Who does the work?",
        words="Of all that the blocks add together, the part that each one adds. Within a stage they are mostly of "
        "one order of magnitude; a single tall bar does the work of all.",
        axis="share",
        bars=True,
    ),
)

BRANCH_VARIANCE = Quantity(
    key="branch_variance",
    definition="variance of `F`, as that of `x`",
    of="branch",
    by=lambda received, added, channel_axis: variance(added, channel_axis),
)

UNDERFLOW = Quantity(
    key="underflow",
    definition="share of `F` that is too small for its type",
    of="branch",
    by=lambda received, added, channel_axis: underflow_share(added),
)
