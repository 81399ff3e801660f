"""What a connection must know of the depth of its stack: scales that keep a deep stack trainable."""

from __future__ import annotations

from dataclasses import dataclass

from keras_residual._errors import bad_argument


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthScales:
    """The scales that a depth rule gives to every connection of a stack.

    Args:
        skip_scale: Factor on the skip path, for `Residual(skip_scale=…)`.
        init_gain: Factor on the initial weights of the branch's linear maps (in attention: value and output only).
    """

    skip_scale: float
    init_gain: float = 1.0


def deepnorm(depth: int) -> DepthScales:
    """Returns DeepNorm's scales for an encoder or a decoder: `y = LN(alpha * x + F(x))`.

    `alpha = (2 N)^(1/4)` on the skip path and `beta = (8 N)^(-1/4)` on the initial weights, for `N` layers of two
    connections each. Use with `norm="layer_norm"`, `norm_position="post"`.

    Args:
        depth: Number of layers `N`, at least 1.

    Example:
        >>> round(deepnorm(100).skip_scale, 3), round(deepnorm(100).init_gain, 3)
        (3.761, 0.188)

    Reference:
        Wang et al., DeepNet: Scaling Transformers to 1,000 Layers, 2022. https://arxiv.org/abs/2203.00555, figure 2
    """
    _check_depth("deepnorm", depth)
    return DepthScales(skip_scale=(2 * depth) ** 0.25, init_gain=(8 * depth) ** -0.25)


def keel(depth: int) -> DepthScales:
    """Returns Keel's scale: `y = N(alpha * x + F(N(x)))` with `alpha` the number of connections.

    Use with `norm="layer_norm"`, `norm_position=("pre", "post")`.

    Args:
        depth: Number of connections in the stack, at least 1.

    Example:
        >>> keel(64).skip_scale
        64.0

    Reference:
        Chen & Wei, Post-LayerNorm Is Back, 2026. https://arxiv.org/abs/2601.19895
    """
    _check_depth("keel", depth)
    return DepthScales(skip_scale=float(depth))


def _check_depth(owner: str, depth: int) -> None:
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        raise bad_argument(owner, "depth", "a whole number of at least 1", depth)
