"""The outputs of all blocks so far as rows, of which the next block gets a weighted sum."""

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
    """Weights of which the last is 1 and the others 0: the newest output alone, as in a plain stack."""

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """Returns the weights."""
        values = np.zeros(shape, "float32")
        values[..., -1] = 1.0
        return ops.convert_to_tensor(values, dtype=dtype)


class HistoryLink(Link):
    """A plain connection `x + F(x)` behind which, at the end of a block, the outputs so far are averaged. Abstract.

    The rows are the stream, then the stack's input and the output of each block, `(x, X_0, …, X_i)`.

    Args:
        outputs: Number of rows `X` after the connection where it is the last of its block, else None.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.
    """

    def __init__(self, outputs: int | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.outputs = outputs

    @abstractmethod
    def weights_of(self, output: Any) -> Any:
        """Returns the weights of all outputs, of which `output` is the newest; None for the newest alone."""

    def coefficients(self, rows: Rows, context: DepthContext) -> Any:
        """Returns those of a plain connection on the first row."""
        del context
        first = [1] + [0] * (len(rows) - 1)
        return Coefficients(read=first, transport=None, write=first)

    def finish(self, rows: Rows) -> Rows:
        """Appends the block's output, and makes the stream the average of all."""
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
        """Returns the input as the stream and as the first output."""
        return x, x


def outputs_after(place: Place) -> int | None:
    """Returns how many outputs there are behind a connection that ends its block, with the input; else None."""
    if place.position < place.per_block - 1:
        return None
    return place.order // place.per_block + 2
