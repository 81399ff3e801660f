"""Topologies whose rows are the outputs of all blocks so far; the next block receives a weighted sum of them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual.residual.context import DepthContext
from keras_residual.residual.serialization import register
from keras_residual.stacks.topologies.base import Coefficients, Link, Place, Rows, Topology, weighted_sum


@register
class CurrentOnly(keras.initializers.Initializer):
    """Initial weights of 1 for the last entry and 0 for the others: the newest output alone, as in a plain stack."""

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """Returns the weights."""
        values = np.zeros(shape, "float32")
        values[..., -1] = 1.0
        return ops.convert_to_tensor(values, dtype=dtype)


class HistoryLink(Link):
    """A plain connection `x + F(x)`; at the end of a block, the outputs so far are averaged. Abstract.

    The rows are the stream, the stack's input and the output of each block, `(x, X_0, …, X_i)`.

    Args:
        outputs: Number of rows `X` after the connection if it is the last of its block, otherwise None.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.
    """

    def __init__(self, outputs: int | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.outputs = outputs

    @abstractmethod
    def weights_of(self, output: Any) -> Any:
        """Returns the weights of all outputs, the newest of which is `output`; None for the newest alone."""

    def coefficients(self, rows: Rows, context: DepthContext) -> Coefficients:
        """Returns the coefficients of a plain connection on the first row."""
        del context
        first = [1] + [0] * (len(rows) - 1)
        return Coefficients(read=first, transport=None, write=first)

    def finish(self, rows: Rows) -> Rows:
        """Appends the output of the block, and replaces the stream by the average of all outputs."""
        if self.outputs is None:
            return rows
        output, *history = rows
        history = (*history, output)
        weights = self.weights_of(output)
        return (output if weights is None else weighted_sum(weights, history), *history)


class HistoryTopology(Topology):
    """A topology of history links. Abstract."""

    fixed_shape = False

    def begin(self, x: Any) -> Rows:
        """Returns the input, as the stream and as the first output."""
        return x, x


def outputs_after(place: Place) -> int | None:
    """Returns the number of outputs, with the input, after a connection that ends its block; otherwise None."""
    if place.position < place.per_block - 1:
        return None
    return place.order // place.per_block + 2
