"""How far the matrices that carry the streams are from keeping their sum."""

from __future__ import annotations

from typing import Any

from keras import ops


def double_stochasticity(transport: Any) -> Any:
    """Returns by how much the sum of a row or of a column misses 1, at the worst of them, as a mean over the tokens.

    Range: 0 and above. A doubly stochastic matrix, and the identity, have 0: mixing then neither adds to the sum of the
    streams nor takes from it. mHC comes to about 1e-5 and to more where its logits are large; the free matrices of
    Hyper-Connections to anything.

    Args:
        transport: Tensor `(…, n, n)`.

    Reference:
        Xie et al., mHC: Manifold-Constrained Hyper-Connections, 2025. https://arxiv.org/abs/2512.24880, section 4
        Sinkhorn & Knopp, Concerning nonnegative matrices and doubly stochastic matrices, 1967.
    """
    sums: list[Any] = [ops.sum(ops.cast(transport, "float32"), axis=axis) for axis in (-1, -2)]
    errors = [ops.max(ops.abs(total - 1.0), axis=-1) for total in sums]
    return ops.mean(ops.maximum(*errors))
