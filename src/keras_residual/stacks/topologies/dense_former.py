"""DenseFormer: after each block, a weighted average of the outputs of all blocks so far."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_residual._arguments import owner_of, whole_number
from keras_residual._types import Shape
from keras_residual.residual.serialization import register
from keras_residual.stacks.topologies.base import Link, Place
from keras_residual.stacks.topologies.block_history import CurrentOnly, HistoryLink, HistoryTopology, outputs_after


@register
class DenseFormerLink(HistoryLink):
    """A connection whose block ends in a depth-weighted average, with one learned weight per output.

    Args:
        outputs: As in `HistoryLink`.
        dilation: Step between averaged outputs, counted back from the newest.
        averages: Whether there is an average after this connection.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.
    """

    def __init__(self, outputs: int | None, dilation: int, averages: bool, **kwargs: Any) -> None:
        super().__init__(outputs, **kwargs)
        self.dilation = dilation
        self.averages = averages

    def build(self, input_shape: Shape) -> None:
        """Adds the weights."""
        del input_shape
        self.alphas = None
        if self.averages and self.outputs is not None:
            shape = (len(self._averaged(self.outputs)),)
            self.alphas = self.add_weight(shape=shape, initializer=CurrentOnly(), name="alphas")

    def weights_of(self, output: Any) -> Any:
        """Returns the learned weights, and 0 for the outputs that the dilation skips."""
        del output
        if self.alphas is None or self.outputs is None:
            return None
        weights: list[Any] = [0] * self.outputs
        alphas: Any = ops.convert_to_tensor(self.alphas)
        for place, row in enumerate(self._averaged(self.outputs)):
            weights[row] = alphas[place]
        return weights

    def _averaged(self, outputs: int) -> range:
        return range((outputs - 1) % self.dilation, outputs, self.dilation)


@register
class DenseFormer(HistoryTopology):
    """Averages all outputs so far after each block: `X_i = B_i(Y_{i-1})`, `Y_i = sum_j a_ij X_j`, `Y_0 = X_0`.

    `X_0` is the stack's input and `Y_i` the input of the next block; the last `Y` is the stack's output. At first
    `a_ii = 1` and all others are 0, which is the plain stack. A block of several connections has one average, after the
    last of them.

    Args:
        dilation: `k`: only every `k`-th output is averaged, counted back from the newest, `X_i, X_{i-k}, …`.
        period: `p`: an average after every `p`-th block only.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.

    Reference:
        Pagliardini et al., DenseFormer: Enhancing Information Flow in Transformers via Depth Weighted Averaging, 2024.
        https://arxiv.org/abs/2402.02622, section 3
    """

    def __init__(self, dilation: int = 1, period: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dilation = whole_number(owner_of(self), "dilation", dilation)
        self.period = whole_number(owner_of(self), "period", period)

    def link(self, place: Place) -> Link:
        """Returns a link, which has weights only if the connection ends a block."""
        outputs = outputs_after(place)
        averages = outputs is not None and (outputs - 1) % self.period == 0
        return DenseFormerLink(outputs, self.dilation, averages, name=place.link_name, dtype=self.dtype_policy)
