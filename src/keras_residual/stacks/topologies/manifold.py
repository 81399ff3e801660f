"""Manifold-constrained Hyper-Connections, which mix streams by doubly stochastic matrices."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from typing import Any, cast

import keras
import numpy as np
from keras import ops

from keras_residual._arguments import owner_of, whole_number
from keras_residual._errors import bad_argument
from keras_residual._types import Shape
from keras_residual.residual.serialization import register
from keras_residual.stacks.topologies.base import Coefficients, Link, Place
from keras_residual.stacks.topologies.streams import (
    NORM_EPSILON,
    ByDepth,
    MultiStream,
    MultiStreamLink,
    check_width,
)


class ManifoldLink(MultiStreamLink):
    """A connection `X' = H_res X + H_post^T F(H_pre X)`, whose weights depend on all streams of a token. Abstract.

    With `x = RMSNorm(vec X)`, without a gain, and `W`, `a` and `b` of each of the three:

        H_pre = sigmoid(a x W + b),   H_post = 2 sigmoid(a x W + b),   H_res = a projection of a x W + b
    """

    @abstractmethod
    def first_logits(self) -> np.ndarray:
        """Returns the initial `b` of `H_res`, with one axis; empty for the identity."""

    @abstractmethod
    def residual(self, logits: Any) -> Any:
        """Returns `H_res`, `(…, streams, streams)`, from `a x W + b`."""

    def build(self, input_shape: Shape) -> None:
        """Adds `W` as `kernel`, `b` as `bias` and `a` as `scale`, for `H_pre`, `H_post` and `H_res` side by side."""
        width = self.streams * check_width(owner_of(self), input_shape, "from which weights are computed")
        logits = len(self.first_logits())
        units = 2 * self.streams + logits
        # Coefficients are computed in float32 whatever the blocks compute in.
        options: dict[str, Any] = {"autocast": False}
        self.kernel = self.add_weight(shape=(width, units), initializer="zeros", name="kernel", **options)
        bias = ByDepth(self._first_bias, self.index)
        self.bias = self.add_weight(shape=(units,), initializer=bias, name="bias", **options)
        small = keras.initializers.Constant(0.01)
        self.scale = self.add_weight(shape=(3 if logits else 2,), initializer=small, name="scale", **options)

    def _first_bias(self, index: int) -> np.ndarray:
        return np.concatenate([self.own_stream(index), np.zeros(self.streams), self.first_logits()])

    def weigh(self, x: Any) -> Coefficients:
        """Returns `Q = H_pre`, `T = H_res` and `P = H_post`."""
        n = self.streams
        shape: Any = ops.shape(x)
        flat: Any = ops.reshape(x, (*shape[:-2], n * x.shape[-1]))
        kernel, bias, scale = (cast(Any, ops.cast(w, flat.dtype)) for w in (self.kernel, self.bias, self.scale))
        mean_square: Any = ops.mean(ops.square(flat), axis=-1, keepdims=True)
        # The norm after the product, where it has fewer elements to divide.
        by_token = cast(Any, ops.matmul(flat, kernel)) * cast(Any, ops.rsqrt(mean_square + NORM_EPSILON))
        pre: Any = ops.sigmoid(scale[0] * by_token[..., :n] + bias[:n])
        post: Any = ops.sigmoid(scale[1] * by_token[..., n : 2 * n] + bias[n : 2 * n])
        if not len(self.first_logits()):
            return Coefficients(read=pre, transport=None, write=2 * post)
        return Coefficients(
            read=pre, transport=self.residual(scale[2] * by_token[..., 2 * n :] + bias[2 * n :]), write=2 * post
        )


@register
class SinkhornLink(ManifoldLink):
    """A connection whose `H_res` is `exp(logits)`, with columns and rows alternately divided by their sums.

    Args:
        streams: Number of streams.
        iterations: Number of alternations.
        **kwargs: As for every link of several streams.
    """

    def __init__(self, streams: int, iterations: int, **kwargs: Any) -> None:
        super().__init__(streams, **kwargs)
        self.iterations = iterations

    def first_logits(self) -> np.ndarray:
        """Returns the identity matrix, row by row."""
        return np.eye(self.streams).ravel()

    def residual(self, logits: Any) -> Any:
        """Returns the matrix; its rows sum to 1 up to rounding, its columns as closely as the iterations achieve."""
        return ops.exp(sinkhorn(_as_matrix(logits, self.streams), self.iterations))


@register
class PermutationsLink(ManifoldLink):
    """A connection whose `H_res` is a mean of all permutation matrices, weighted by the softmax of the logits."""

    def first_logits(self) -> np.ndarray:
        """Returns the number of streams that each permutation leaves in place."""
        return np.trace(permutations(self.streams), axis1=1, axis2=2)

    def residual(self, logits: Any) -> Any:
        """Returns the matrix; its rows and columns sum to 1 up to rounding."""
        each = permutations(self.streams)
        # The softmax of Keras warns about an axis of length 1, as for one stream.
        weights: Any = ops.exp(_log_normalize(logits, -1))
        table = ops.convert_to_tensor(each.reshape(len(each), -1), dtype=weights.dtype)
        return _as_matrix(ops.matmul(weights, table), self.streams)


@register
class IdentityLink(ManifoldLink):
    """A connection whose `H_res` is the identity."""

    def first_logits(self) -> np.ndarray:
        """Returns none."""
        return np.zeros(0)

    def residual(self, logits: Any) -> Any:
        """Raises, since `H_res` is the identity and is never computed."""
        raise NotImplementedError


class Manifold(MultiStream):
    """What mHC and its relatives share. Abstract."""

    channel_axis = -1

    def check(self, depth: int, per_block: int, input_shape: Shape) -> None:
        """Raises if the length of the last axis is not known."""
        del depth, per_block
        check_width(owner_of(self), input_shape, "from which the weights of streams are computed")


@register
class MHC(Manifold):
    """mHC: Hyper-Connections whose mixing preserves the sum of the streams.

    With the streams as the rows of `X`, a connection computes `X' = H_res X + H_post^T F(H_pre X)`. For each token, a
    position along all axes but the last, `x = RMSNorm(vec X)` gives

        H_pre = sigmoid(a1 x W1 + b1),   H_post = 2 sigmoid(a2 x W2 + b2),   H_res = Sinkhorn(exp(a3 mat(x W3) + b3))

    where Sinkhorn divides columns and then rows by their sums, `iterations` times, in the logarithm and in float32. The
    rows of `H_res` sum to 1 up to rounding. Its columns, and so the sum of the streams, are within 1e-5 of 1 for logits
    with a standard deviation of 1, but only within 0.1 for one of 4: 20 iterations are not enough there, and
    `"mhc_lite"` is exact.

    Streams begin as `n` copies and end in their sum, as in Hyper-Connections. At first `a = 0.01`, `W = 0`, `b2 = 0`,
    `b3 = I`, and `b1` is 1 for one stream, the connection's index in the whole stack modulo `n`, and 0 for the others.
    So `H_post = 1`, and as long as the streams are equal, `H_res` changes nothing: if each branch starts with a norm,
    every stream is that of a plain pre-norm stack, and the output is `n` times it. A branch without a norm receives
    `0.73 + 0.5 (n - 1)` times the stream. Other implementations start elsewhere: MaxText has `b = 0` and a random `W`,
    which is a plain stack within a hundredth; with `W = 0` as well, the streams would stay equal forever.

    A connection has `n d (n² + 2 n) + n² + 2 n + 3` weights.

    Args:
        streams: `n`, at least 1.
        iterations: Iterations of Sinkhorn's algorithm, from 1 to 10,000.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.

    Reference:
        Xie et al., mHC: Manifold-Constrained Hyper-Connections, 2025. https://arxiv.org/abs/2512.24880, eq. 3 to 9
    """

    def __init__(self, streams: int = 4, iterations: int = 20, **kwargs: Any) -> None:
        super().__init__(streams, **kwargs)
        self.iterations = whole_number(owner_of(self), "iterations", iterations, most=10_000)

    def link(self, place: Place) -> Link:
        """Returns a connection."""
        return SinkhornLink(iterations=self.iterations, **self.arguments(place))


@register
class MHCLite(Manifold):
    """mHC whose `H_res` is a softmax-weighted mean of all `n!` permutation matrices: exactly doubly stochastic.

    All else is as in `MHC`. At first the logit of a permutation is the number of streams that it leaves in place; for
    `n = 4` this gives `H_res` a diagonal of 0.63.

    A connection has `n d (n! + 2 n) + n! + 2 n + 3` weights.

    Args:
        streams: `n`, from 1 to 5: there are `n!` permutations.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.

    Reference:
        mHC-lite, 2026. https://arxiv.org/abs/2601.05732
    """

    def __init__(self, streams: int = 4, **kwargs: Any) -> None:
        super().__init__(streams, **kwargs)
        if self.streams > 5:
            rule = "at most 5, since there are streams! permutations"
            raise bad_argument(owner_of(self), "streams", rule, streams, "Use topology='mhc' for more.")

    def link(self, place: Place) -> Link:
        """Returns a connection."""
        return PermutationsLink(**self.arguments(place))


@register
class IdentityHyperConnections(Manifold):
    """mHC with `H_res = I`: connections read and write the streams with learned weights, and never mix them.

    All else is as in `MHC`. A connection has `2 n² d + 2 n + 2` weights.

    Args:
        streams: `n`, at least 1.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.

    Reference:
        Chimera, 2026. https://arxiv.org/abs/2607.28611; an ablation in Xie et al., mHC, 2025
    """

    def link(self, place: Place) -> Link:
        """Returns a connection."""
        return IdentityLink(**self.arguments(place))


def sinkhorn(logits: Any, iterations: int) -> Any:
    """Returns the logarithm of Sinkhorn's algorithm applied to `exp(logits)`, along the last two axes."""
    # In the logarithm, since the exponentials of large logits could underflow to rows of zeros.
    for _ in range(iterations):
        logits = _log_normalize(_log_normalize(logits, -2), -1)
    return logits


def _log_normalize(logits: Any, axis: int) -> Any:
    # Not the logsumexp of Keras, which handles infinities with three times the operations; this runs 40 times per
    # connection.
    below = logits - ops.stop_gradient(ops.max(logits, axis=axis, keepdims=True))
    return below - ops.log(ops.sum(ops.exp(below), axis=axis, keepdims=True))


def _as_matrix(rows: Any, streams: int) -> Any:
    return ops.reshape(rows, (*cast(Any, ops.shape(rows))[:-1], streams, streams))


def permutations(streams: int) -> np.ndarray:
    """Returns all permutation matrices, `(streams!, streams, streams)`, the identity first."""
    return np.eye(streams)[list(itertools.permutations(range(streams)))]
