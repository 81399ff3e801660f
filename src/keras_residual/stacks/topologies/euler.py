"""A stack as Euler's method for an ordinary differential equation."""

from __future__ import annotations

from typing import Any

from keras_residual._arguments import owner_of, positive
from keras_residual.residual.context import DepthContext
from keras_residual.residual.serialization import register
from keras_residual.stacks.topologies.base import Coefficients, Link, Place, Rows, Topology


@register
class EulerLink(Link):
    """One step of Euler's method: `x' = x + h F(x)`.

    Args:
        step: `h`.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.
    """

    def __init__(self, step: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.step = step

    def coefficients(self, rows: Rows, context: DepthContext) -> Coefficients:
        """Returns `Q = [1]`, `T = I` and `P = [h]`."""
        del rows, context
        return Coefficients(read=(1,), transport=None, write=(self.step,))


@register
class Euler(Topology):
    """Steps of Euler's method for `dx/dt = F(x)`: `x' = x + h F(x)`. With `h = 1` this is the plain stack.

    Any data format. No weights.

    Args:
        step: `h`, above 0. None, the default, means 1 over the number of connections: the whole stack is one unit of
            time, and a deeper stack solves the same equation with finer steps.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.

    Reference:
        Chen et al., Neural Ordinary Differential Equations, 2018. https://arxiv.org/abs/1806.07366, eq. 1 and 2
    """

    def __init__(self, step: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.step = None if step is None else positive(owner_of(self), "step", step)

    def link(self, place: Place) -> Link:
        """Returns a step."""
        step = 1 / place.connections if self.step is None else self.step
        return EulerLink(step, name=f"link_{place.position}", dtype=self.dtype_policy)
