"""Units that are never active."""

from __future__ import annotations

from typing import Any

from keras import ops


def dead_units(activation: Any, channel_axis: int = -1) -> Any:
    """Returns the number of units whose activation is at most 0 for each sample and place.

    Range: 0 to the number of channels. Healthy: below 5 % of the units of a ReLU layer; above 20 % the learning rate
    is too large, the biases too negative or the inputs all alike. A batch of 32 or more tells dead from rare.

    Args:
        activation: What a ReLU gives, `(batch, …)`.
        channel_axis: Axis of the units.

    Reference:
        Lu et al., Dying ReLU and Initialization, 2019. https://arxiv.org/abs/1903.06733
    """
    rank = len(activation.shape)
    others = tuple(i for i in range(rank) if i != channel_axis % rank)
    largest: Any = ops.max(activation, axis=others)
    return ops.sum(ops.cast(largest <= 0, "float32"))
