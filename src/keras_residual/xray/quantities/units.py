"""Units that are stuck: dead, or at the flat ends of a sigmoid or a tanh."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from keras_residual.xray.find.structure import BOUNDED, RELU_LIKE
from keras_residual.xray.quantities.chart import DepthChart
from keras_residual.xray.quantities.quantity import LEAST_SAMPLES, Band, Quantity


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


FLAT = 0.1
"""A unit is saturated where the derivative is below this part of its greatest value."""


def saturated_units(activation: Any, function: str) -> Any:
    """Returns the share of activations at which the function's derivative is below a tenth of its greatest value.

    Range: 0 to 1. Healthy: below 0.5. The derivative of the sigmoid `s` is `s (1 - s)`, at most 1/4; that of the tanh
    `t` is `1 - t^2`, at most 1.

    Args:
        activation: What the function gives, of any shape.
        function: `"sigmoid"` or `"tanh"`.

    Reference:
        Glorot & Bengio 2010, section 3. https://proceedings.mlr.press/v9/glorot10a.html
    """
    a: Any = ops.cast(activation, "float32")
    derivative = 4 * a * (1 - a) if function == "sigmoid" else 1 - a * a
    return ops.mean(ops.cast(derivative < FLAT, "float32"))


DEAD_UNITS = Quantity(
    key="dead_units",
    definition="part of the ReLU units that are 0 for every sample, of a batch of 16 or more different ones",
    of="units",
    by=lambda out, channel_axis, function: (dead_units(out, channel_axis), out.shape[channel_axis]),
    activations=RELU_LIKE,
    label="units that are always off",
    column="dead",
    band=Band(high=0.2),
    percent=True,
    history=True,
    tensorboard=True,
    samples=LEAST_SAMPLES,
    chart=DepthChart(
        title="Are there units that never switch on?",
        words="A ReLU unit is off where its input is negative. One that is off for every example is dead: it passes on "
        "nothing and learns nothing. Some percent are usual; a line above the shaded band is a loss.",
        axis="dead units",
        chapter="numbers",
        domain=(0.0, 1.0),
    ),
)

SATURATED_UNITS = Quantity(
    key="saturated_units",
    definition="part of the sigmoids and tanhs whose slope is below a tenth of its greatest",
    of="units",
    by=lambda out, channel_axis, function: (
        saturated_units(out, function) * math.prod(out.shape),
        math.prod(out.shape),
    ),
    activations=BOUNDED,
    label="units at their limit",
    column="saturated",
    band=Band(high=0.5),
    percent=True,
    tensorboard=True,
    chart=DepthChart(
        title="Are there units stuck at their limit?",
        words="A sigmoid or tanh that is pushed to its end hardly moves any more, and lets hardly any gradient "
        "through. A line above the shaded band: most units of the block are stuck.",
        axis="saturated units",
        chapter="numbers",
        domain=(0.0, 1.0),
    ),
)
