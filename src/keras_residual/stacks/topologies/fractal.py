"""FractalNet: columns of blocks, each half as long as the one before it, that meet in means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import keras
from keras import ops

from keras_residual._arguments import number, owner_of, share
from keras_residual._errors import bad_argument
from keras_residual._types import Shape
from keras_residual.residual.context import DepthContext
from keras_residual.residual.serialization import register
from keras_residual.stacks.topologies.base import Coefficients, Link, Place, Rows, Topology

LOCAL = -1.0
"""In the row of a call's draw: no column alone, each join drops for itself."""


@register
class FractalLink(Link):
    """A block of one column, which replaces the row of the column, and the join after the last block of a time step.

    There is one row per column; in training with drop path, a last row of one number says which column acts alone in
    this call.

    Args:
        column: Index of the block's column, from 0 for the longest.
        columns: Number of columns.
        joins: Number of columns, from the first, that are joined after this connection; 0 for none.
        begins: Whether this is the first connection of the stack.
        drop_path_rate: As in `Fractal`.
        global_rate: As in `Fractal`.
        seed: Seed of the draws.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.
    """

    def __init__(
        self,
        column: int,
        columns: int,
        joins: int,
        begins: bool,
        drop_path_rate: float,
        global_rate: float,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.column = column
        self.columns = columns
        self.joins = joins
        self.begins = begins
        self.drop_path_rate = drop_path_rate
        self.global_rate = global_rate
        self.seed = seed
        # Even without a join, since a stack expects the same generators in every block.
        self.seed_generator = keras.random.SeedGenerator(seed) if drop_path_rate or global_rate else None

    def coefficients(self, rows: Rows, context: DepthContext) -> Coefficients:
        """Returns coefficients that read the column, keep the other rows, and write to the column alone."""
        del context
        unit = [int(i == self.column) for i in range(len(rows))]
        kept = [[int(i == j != self.column) for j in range(len(rows))] for i in range(len(rows))]
        return Coefficients(read=unit, transport=kept, write=unit)

    def connect(
        self, rows: Rows, branch: Callable[[Any], Any], context: DepthContext, training: bool | None = None
    ) -> Rows:
        """Returns the rows after the connection; the first connection copies the input to a row for each column."""
        if self.begins:
            rows = rows * self.columns  # the tuple, so many times the input
            if training and (self.drop_path_rate or self.global_rate):
                rows = (*rows, self._draw_column())
        return super().connect(rows, branch, context, training)

    def finish(self, rows: Rows) -> Rows:
        """Joins columns in their mean, if a join follows this connection."""
        if self.joins < 2:
            return rows
        joined, others = rows[: self.joins], rows[self.joins :]
        mean: Any
        if len(rows) == self.columns:
            total = joined[0]
            for row in joined[1:]:
                total = total + row
            mean = total / self.joins
        else:
            weights = self._weights(rows[-1])
            # `where` rather than a product, since 0 * inf of a dropped path that overflowed would be nan.
            mean = cast(Any, ops.zeros_like(joined[0]))
            for index, row in enumerate(joined):
                weight: Any = ops.cast(weights[index], row.dtype)
                mean = mean + ops.where(weight > 0, row * weight, ops.zeros_like(row))
        return (*[mean] * self.joins, *others)

    def _draw_column(self) -> Any:
        """Returns the column that acts alone in this call, or `LOCAL`."""
        draws: Any = keras.random.uniform((2,), dtype="float32", seed=self.seed_generator)
        column = ops.minimum(ops.floor(draws[1] * self.columns), self.columns - 1.0)
        return ops.where(draws[0] < self.global_rate, column, LOCAL)

    def _weights(self, alone: Any) -> Any:
        """Returns the weight of each joined column, `(joins,)`: equal for active columns, 0 for the others."""
        columns = ops.arange(self.joins, dtype="float32")
        draws: Any = keras.random.uniform((self.joins,), dtype="float32", seed=self.seed_generator)
        # If all draws are below the rate, the path with the largest draw stays.
        alive = draws >= ops.minimum(self.drop_path_rate, ops.max(draws))
        # A join that the column acting alone does not reach has no effect on the output.
        alive = ops.where(ops.logical_and(alone >= 0, alone < self.joins), columns == alone, alive)
        kept: Any = ops.cast(alive, "float32")
        return kept / ops.sum(kept)


@register
class Fractal(Topology):
    """Columns side by side, without residual connections: `f_1 = B`, `f_{C+1}(z) = mean(f_C(f_C(z)), B(z))`.

    With `C` columns, column `c` has a block at each of the time steps `1, …, 2^(C-1)` that `2^c` divides, `2^C - 1`
    blocks in all. At each step the columns with a block are joined in their mean, from which all of them continue. If
    several joins of the formula coincide, this is one mean of all columns, as in figure 1 of the paper. The blocks of
    the stack are in order of time, and within a step from the longest column to the shortest. Only the branch of a
    `Residual` is used; the branches of a block of several connections are applied one after another.

    Drop path in training: in each call, with probability `global_rate`, one uniformly chosen column acts alone
    throughout; otherwise each join drops each of its inputs with probability `drop_path_rate`, but never all of them,
    and takes the mean of the others. At inference all columns act, and nothing is rescaled.

    Args:
        drop_path_rate: Rate of the local drop path, in `[0, 1)`.
        global_rate: Share of calls with the global drop path, in `[0, 1]`. Both defaults are those of the paper.
        seed: Integer that makes the draws reproducible, or None.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.

    Raises:
        ValueError: For a stack whose depth is not `2^C - 1`.

    Reference:
        Larsson et al., FractalNet: Ultra-Deep Neural Networks without Residuals, 2017.
        https://arxiv.org/abs/1605.07648, sections 3 and 4
    """

    fixed_shape = False

    def __init__(
        self, drop_path_rate: float = 0.15, global_rate: float = 0.5, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        owner = owner_of(self)
        self.drop_path_rate = share(owner, "drop_path_rate", drop_path_rate)
        self.global_rate = number(owner, "global_rate", global_rate, "a number in [0, 1]", lambda v: 0 <= v <= 1)
        self.seed = seed

    def link(self, place: Place) -> Link:
        """Returns a link; raises for an impossible depth."""
        columns = self._columns(place.depth)
        time, column = _schedule(columns)[place.order // place.per_block]
        ends_block = place.position == place.per_block - 1
        ends_step = time % 2 ** (column + 1) != 0 or column == columns - 1
        return FractalLink(
            column,
            columns,
            column + 1 if ends_block and ends_step else 0,
            place.order == 0,
            self.drop_path_rate,
            self.global_rate,
            # One seed for all joins would make them drop alike.
            seed=None if self.seed is None else self.seed + place.order,
            name=place.link_name,
            dtype=self.dtype_policy,
        )

    def check(self, depth: int, per_block: int, input_shape: Shape) -> None:
        """Raises for a depth that is not `2^C - 1`."""
        del per_block, input_shape
        self._columns(depth)

    def _columns(self, depth: int) -> int:
        columns = (depth + 1).bit_length() - 1
        if 2**columns - 1 != depth:
            rule = "2**C - 1, the number of blocks of C columns"
            way_out = (
                f"The nearest are {2**columns - 1} ({columns} columns) and {2 ** (columns + 1) - 1} "
                f"({columns + 1} columns)."
            )
            raise bad_argument(owner_of(self), "depth", rule, depth, way_out)
        return columns


def _schedule(columns: int) -> list[tuple[int, int]]:
    """Returns the time step, from 1, and the column of each block."""
    times = range(1, 2 ** (columns - 1) + 1)
    return [(time, column) for time in times for column in range(columns) if time % 2**column == 0]
