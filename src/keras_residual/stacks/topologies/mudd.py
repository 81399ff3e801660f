"""MUDD connections: after each block, an average of all outputs so far, with weights computed from each token."""

from __future__ import annotations

from typing import Any, cast

import keras
from keras import ops

from keras_residual._arguments import owner_of, whole_number
from keras_residual._types import Shape
from keras_residual.residual.serialization import register
from keras_residual.stacks.topologies.base import Link, Place
from keras_residual.stacks.topologies.block_history import CurrentOnly, HistoryLink, HistoryTopology, outputs_after

EPSILON = 1e-6


@register
class MuddLink(HistoryLink):
    """A connection whose block ends in an average with weights computed from the output of the block.

    Args:
        outputs: As in `HistoryLink`.
        expansion: Hidden units for each output.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.
    """

    def __init__(self, outputs: int | None, expansion: int, **kwargs: Any) -> None:
        super().__init__(outputs, **kwargs)
        self.expansion = expansion

    def build(self, input_shape: Shape) -> None:
        """Builds the two layers that compute the weights."""
        if self.outputs is None:
            return
        initializer = keras.initializers.VarianceScaling(1.0, "fan_in", "untruncated_normal")
        hidden = keras.layers.Dense(
            self.expansion * self.outputs,
            activation="gelu",
            use_bias=False,
            kernel_initializer=cast(Any, initializer),
            dtype=self.dtype_policy,
            name="hidden",
        )
        self.hidden = self._made("hidden", hidden)
        self.hidden.build(input_shape)
        mixing = keras.layers.Dense(
            self.outputs,
            kernel_initializer="zeros",
            bias_initializer=CurrentOnly(),
            dtype=self.dtype_policy,
            name="mixing",
        )
        self.mixing = self._made("mixing", mixing)
        self.mixing.build((*input_shape[:-1], self.expansion * self.outputs))

    def weights_of(self, output: Any) -> Any:
        """Returns `gelu(norm(output) W_1) W_2 + b`, one set of weights per token."""
        # The norm needs no gain, since a kernel follows it.
        return self.mixing(self.hidden(ops.rms_normalization(output, axis=-1, epsilon=EPSILON)))


@register
class Mudd(HistoryTopology):
    """Averages all outputs so far after each block, with weights for each token: `Y_i = sum_j A_ij(X_i) X_j`.

        A_i(X) = gelu(rms_norm(X) W_1) W_2 + b

    `X_0` is the stack's input, `X_i` the output of block `i` and `Y_i` the input of the next block. At first `W_2` is
    0, and `b` is 1 for the newest output and 0 for all others, which is the plain stack. A block of several connections
    has one average, after the last of them.

    Of the four streams in the paper this is the residual one, `R`. The streams of queries, keys and values are left
    out: they give an attention layer three inputs, but the branch of a connection has one.

    Args:
        expansion: Hidden units per weight. The authors' code uses 4 for one stream.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.

    Reference:
        Xiao et al., MUDDFormer: Breaking Residual Bottlenecks in Transformers via Multiway Dynamic Dense Connections,
        2025. https://arxiv.org/abs/2502.12170, section 2
    """

    channel_axis = -1

    def __init__(self, expansion: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.expansion = whole_number(owner_of(self), "expansion", expansion)

    def link(self, place: Place) -> Link:
        """Returns a link, which has weights only if the connection ends a block."""
        return MuddLink(outputs_after(place), self.expansion, name=place.link_name, dtype=self.dtype_policy)
