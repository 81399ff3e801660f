"""How far one step of the optimizer moves the weights."""

from __future__ import annotations

import math

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
