"""U-Net: the first half of the blocks push their outputs on a pile, and the second half pop and add them."""

from __future__ import annotations

from typing import Any

import keras

from keras_residual._arguments import number, owner_of
from keras_residual._types import Shape
from keras_residual.residual.context import DepthContext
from keras_residual.residual.serialization import register
from keras_residual.stacks.topologies.base import Coefficients, Link, Place, Rows, Topology


@register
class UNetLink(Link):
    """A connection that may pop a row from the pile before it, and push one after it.

    Args:
        pops: Whether the last row is popped, and added to the stream `w` times.
        pushes: Whether the stream is pushed as a new last row.
        init: Initial value of `w`.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.
    """

    def __init__(self, pops: bool, pushes: bool, init: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pops = pops
        self.pushes = pushes
        self.init = init

    def build(self, input_shape: Shape) -> None:
        """Adds `w` if a row is popped."""
        del input_shape
        if self.pops:
            initializer = keras.initializers.Constant(self.init)
            self.skip_weight = self.add_weight(shape=(), initializer=initializer, name="skip_weight")

    def coefficients(self, rows: Rows, context: DepthContext) -> Coefficients:
        """Returns `Q = [1, 0, …, w]`, a `T` with the same first row, and a `P` that writes to the first row alone."""
        del context
        read: list[Any] = [1] + [0] * (len(rows) - 1)
        write = list(read)
        if not self.pops:
            return Coefficients(read=read, transport=None, write=write)
        read[-1] = self.skip_weight
        others = [[int(i == j) for j in range(len(rows))] for i in range(1, len(rows) - 1)]
        return Coefficients(read=read, transport=[read, *others], write=write[:-1])

    def finish(self, rows: Rows) -> Rows:
        """Pushes the stream on the pile."""
        return (*rows, rows[0]) if self.pushes else rows


@register
class UNet(Topology):
    """Long skips from the first half of the blocks to the second, from the last of one to the first of the other.

    With `L` blocks `B`, `x_l = B_l(x_{l-1} + w_l x_{L+1-l})` in the second half, and `x_l = B_l(x_{l-1})` before it. If
    `L` is odd, the middle block has no long skip. If it is even, the first block of the second half receives
    `(1 + w) x`, as in the referenced code. With `w = 0` this is the plain stack.

    Args:
        init: Initial value of each `w`, one learnable number per skip.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.

    Reference:
        Ronneberger et al., U-Net, 2015. https://arxiv.org/abs/1505.04597, which concatenates
        Jordan et al., modded-nanogpt, record of 2024-11-10, which adds with learnable weights.
        https://github.com/KellerJordan/modded-nanogpt
    """

    fixed_shape = False

    def __init__(self, init: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.init = number(owner_of(self), "init", init, "a finite number")

    def link(self, place: Place) -> Link:
        """Returns a link that pops before the first connection of a block, or pushes after the last."""
        index, half = place.order // place.per_block, place.depth // 2
        pops = index >= place.depth - half and place.position == 0
        pushes = index < half and place.position == place.per_block - 1
        return UNetLink(pops, pushes, self.init, name=place.link_name, dtype=self.dtype_policy)
