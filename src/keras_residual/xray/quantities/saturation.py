"""Units at the flat ends of a sigmoid or a tanh."""

from __future__ import annotations

from typing import Any

from keras import ops

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
