"""The weights of a block: their size, that of their gradient, and how far a step of the optimizer moves them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_residual.xray.quantities.chart import DepthChart
from keras_residual.xray.quantities.gradients import ratio_of_ends, slope
from keras_residual.xray.quantities.quantity import Band, Quantity
from keras_residual.xray.stages import Block

SIGN_LIKE = ("Adam", "AdamW", "Nadam", "Adamax", "RMSprop", "Lion", "Adafactor", "Adagrad")
"""Optimizers whose first steps move each weight by about the learning rate, whatever the gradient."""


def update_ratio(
    optimizer: str, learning_rate: float, gradient_norm: float, weight_norm: float, size: int, momentum: float = 0.0
) -> float | None:
    """Returns an estimate of `||dW|| / ||W||`, the part of the weights that one step changes; None where unknown.

    Range: 0 and above. Healthy: around 0.001, as a rule of thumb; above 0.1 a step throws away what was learned. It is
    `rate * ||g|| / ((1 - momentum) ||W||)` for SGD, and `rate * sqrt(size) / ||W||` for Adam and its like.

    Args:
        optimizer: Name of the optimizer's class.
        learning_rate: Its learning rate now.
        gradient_norm: `||g||` of the block's weights.
        weight_norm: `||W||`.
        size: Number of the weights.
        momentum: Of SGD, in `[0, 1)`.
    """
    if not weight_norm:
        return None
    if optimizer == "SGD":
        return learning_rate * gradient_norm / ((1 - momentum) * weight_norm)
    if optimizer in SIGN_LIKE:
        return learning_rate * math.sqrt(size) / weight_norm
    return None


def measured_update_ratio(moved: float, weight_norm: float, steps: int = 1) -> float | None:
    """Returns `||W' - W|| / (steps ||W||)`, the part of the weights that one step has changed; None where they were 0.

    Range and healthy values as of `update_ratio`. Over several steps it is a lower bound of their mean, since steps in
    different directions cancel.

    Args:
        moved: `||W' - W||` of the block's weights, before and after the steps.
        weight_norm: `||W||` before.
        steps: Number of steps, 1 or more.
    """
    return moved / (steps * weight_norm) if weight_norm else None


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightSums:
    """What is known of the weights of a block that are trained, taken together.

    Args:
        trained: Whether there are any.
        norm: Their norm.
        gradient: That of their gradient.
        size: Their number.
        moved: How far they are from where they were when training was watched.
        before: The norm that they had then.
        steps: Number of steps since then; 0 where none was watched.
        optimizer: Name, learning rate and momentum of the optimizer; None for none.
    """

    trained: bool
    norm: float
    gradient: float
    size: int
    moved: float
    before: float
    steps: int
    optimizer: Mapping[str, Any] | None


def _update_ratio(sums: WeightSums) -> float | None:
    if not sums.trained:
        return None
    if sums.steps:
        return measured_update_ratio(sums.moved, sums.before, sums.steps)
    if sums.optimizer is None:
        return None
    return update_ratio(gradient_norm=sums.gradient, weight_norm=sums.norm, size=sums.size, **sums.optimizer)


def _update_size(sums: WeightSums) -> float | None:
    step = _update_ratio(sums)
    return None if step is None else step * sums.norm / math.sqrt(sums.size)


def _gradients(blocks: Sequence[Block]) -> list[float]:
    return [block["weight_gradient_norm"] for block in blocks if block["weight_gradient_norm"] is not None]


WEIGHT_NORM = Quantity(
    key="weight_norm",
    definition="norm of `W`",
    of="weights",
    by=lambda sums: sums.norm if sums.trained else None,
    label="size of the weights",
)

WEIGHT_GRADIENT_NORM = Quantity(
    key="weight_gradient_norm",
    definition="norm of `dL/dW`",
    of="weights",
    by=lambda sums: sums.gradient if sums.trained else None,
    history=True,
    tensorboard=True,
)

WEIGHT_GRADIENT_RATIO = Quantity(
    key="weight_gradient_ratio",
    definition="norm of `dL/dW` over that of `W`",
    of="weights",
    by=lambda sums: sums.gradient / sums.norm if sums.trained and sums.norm else None,
    label="pull on the weights",
    column="dW/W",
    chart=DepthChart(
        title="How hard are the weights of each block pulled?",
        words="The gradient of a block's own weights, divided by the size of these weights. Blocks of the same kind "
        "usually lie within some tens of times of one another. A block far below all others hardly learns, one far "
        "above them takes the largest steps.",
        axis="gradient / weights",
        chapter="learning",
        log=True,
    ),
)

UPDATE_RATIO = Quantity(
    key="update_ratio",
    definition="part of `W` that one step of the optimizer changes, mostly about 0.1 %",
    of="weights",
    by=_update_ratio,
    label="one step moves the weights by",
    band=Band(high=0.1),
    percent=True,
    history=True,
    tensorboard=True,
    watched=True,
    chart=DepthChart(
        title="How far does one step of training move the weights?",
        words="The part of its weights that one step of the optimizer changes. About 0.1 % is usual. Above the shaded "
        "band a step throws away what was learned before: the learning rate is too large. Far below it, training takes "
        "very long.",
        axis="change of the weights in a step",
        chapter="learning",
        log=True,
    ),
)

UPDATE_SIZE = Quantity(
    key="update_size",
    definition="root mean square of what one step adds to the entries of `W`",
    of="weights",
    by=_update_size,
)

WEIGHT_GRADIENT_ENDS = Quantity(
    key="weight_gradient_ratio",
    definition="norm of `dL/dW` of the first block over that of the last",
    of="model",
    of_whole=True,
    by=lambda blocks, model: ratio_of_ends(_gradients(blocks)),
    tensorboard=True,
)

WEIGHT_GRADIENT_SLOPE = Quantity(
    key="weight_gradient_slope",
    definition="by how much the logarithm of the norm of `dL/dW` changes from block to block",
    of="model",
    of_whole=True,
    by=lambda blocks, model: slope(_gradients(blocks)),
)

LEARNING_RATE = Quantity(
    key="learning_rate",
    definition="the learning rate of the optimizer at that moment",
    of="model",
    of_whole=True,
    by=lambda blocks, model: model["learning_rate"],
    tensorboard=True,
)
