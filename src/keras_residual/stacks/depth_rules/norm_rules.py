"""Rules for stacks with norms: DeepNorm and Keel after the sum, LayerNorm Scaling before the branch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_residual._arguments import choice, whole_number
from keras_residual._errors import bad_argument
from keras_residual.residual.residual import Residual
from keras_residual.residual.scales import FixedScale
from keras_residual.residual.serialization import register
from keras_residual.stacks.depth_rules.base import (
    DepthPlan,
    DepthRule,
    Gains,
    constant,
    needs_no_scale,
    needs_position,
    needs_sum,
)
from keras_residual.stacks.depth_rules.linear_maps import linear_maps, value_path
from keras_residual.stacks.pattern import with_arguments

_NORM_SCALE = "norm_scale"


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
    depth = whole_number("deepnorm", "depth", depth)
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
    depth = whole_number("keel", "depth", depth)
    return DepthScales(skip_scale=float(depth))


@register
class DeepNorm(DepthRule):
    """DeepNorm: `y = LN(alpha * x + F(x))`, with smaller initial weights on the path of the values.

    Without arguments the stack is an encoder or a decoder alone, and a connection is one of its `2 N` sublayers:
    `alpha = (2 N)^(1/4)`, `beta = (8 N)^(-1/4)`. In an encoder-decoder of `N` and `M` layers the encoder has
    `alpha = 0.81 (N^4 M)^(1/16)`, `beta = 0.87 (N^4 M)^(-1/16)`, the decoder `(3 M)^(1/4)` and `(12 M)^(-1/4)`.

    The encoder's constants follow from the paper's bound on the model's update. A change in the encoder reaches the
    output through the decoder's `M` cross-attentions, each of which passes on `beta_d^2 / alpha_d`: what must be 1 is
    `M * beta_d^2 / alpha_d * 2 N * 2 beta_e^2 / alpha_e^2`. In all other cases `alpha * beta = 1 / sqrt(2)`; with that
    here too, `alpha_e = 0.8138 (N^4 M)^(1/16)` and `beta_e = 0.8689 (N^4 M)^(-1/16)`, which the paper rounds.
    Torchscale divides by `(N^4 M)^(1/16) / 1.15`, the inverse of the constant: the bound is then 1.77.

    Args:
        encoder_layers: `N`; None for an encoder or a decoder alone.
        decoder_layers: `M`; None likewise.
        part: Which of the two this stack is: `"encoder"` or `"decoder"`.

    Reference:
        Wang et al., DeepNet: Scaling Transformers to 1,000 Layers, 2022. https://arxiv.org/abs/2203.00555, section 4
    """

    name = "deepnorm"

    def __init__(
        self, encoder_layers: int | None = None, decoder_layers: int | None = None, part: str = "encoder"
    ) -> None:
        if (encoder_layers is None) != (decoder_layers is None):
            rule = "given together with `encoder_layers`, or left out with it"
            raise bad_argument("DeepNorm", "decoder_layers", rule, decoder_layers)
        layers = {"encoder_layers": encoder_layers, "decoder_layers": decoder_layers}
        self.encoder_layers, self.decoder_layers = (
            None if value is None else whole_number("DeepNorm", argument, value) for argument, value in layers.items()
        )
        self.part = choice("DeepNorm", "part", part, ("encoder", "decoder"))

    def scales(self, connections: int) -> DepthScales:
        """Returns `alpha` and `beta` for a stack with this number of connections."""
        if self.encoder_layers is None or self.decoder_layers is None:
            return DepthScales(skip_scale=connections**0.25, init_gain=(4 * connections) ** -0.25)
        if self.part == "decoder":
            return DepthScales(
                skip_scale=(3 * self.decoder_layers) ** 0.25, init_gain=(12 * self.decoder_layers) ** -0.25
            )
        size = (self.encoder_layers**4 * self.decoder_layers) ** (1 / 16)
        return DepthScales(skip_scale=0.81 * size, init_gain=0.87 / size)

    def configure(self, connection: Residual, *, depth: int, per_block: int) -> Residual:
        """Checks that a norm follows the sum, and that the skip path has no scale."""
        del depth, per_block
        needs_sum(self.name, connection)
        needs_position(self.name, connection, "post")
        needs_no_scale(self.name, connection, "skip_scale")
        return connection

    def plan(self, *, depth: int, per_block: int) -> DepthPlan:
        """Returns `alpha` on the skip paths and `beta` on values, outputs and feed-forward weights."""
        scales = self.scales(depth * per_block)

        def gains(connection: Residual) -> Gains:
            factors = np.full(depth, scales.init_gain, "float32")
            return [(found.kernel, factors) for found in value_path(linear_maps(connection.branch))]

        return DepthPlan(skip_scale=constant(scales.skip_scale, depth, per_block), gains=gains)


@register
class Keel(DepthRule):
    """Keel: `y = N(alpha * x + F(N(x)))`, with `alpha` the number of connections in the stack.

    Reference:
        Chen & Wei, Post-LayerNorm Is Back, 2026. https://arxiv.org/abs/2601.19895
    """

    name = "keel"

    def configure(self, connection: Residual, *, depth: int, per_block: int) -> Residual:
        """Checks that there are norms before the branch and after the sum."""
        del depth, per_block
        needs_sum(self.name, connection)
        needs_position(self.name, connection, "pre", "post")
        needs_no_scale(self.name, connection, "skip_scale")
        return connection

    def plan(self, *, depth: int, per_block: int) -> DepthPlan:
        """Returns `alpha` on the skip paths."""
        return DepthPlan(skip_scale=constant(float(depth * per_block), depth, per_block))


@register
class LayerNormScaling(DepthRule):
    """LayerNorm Scaling: `y = x + F(N(x) / sqrt(l))`, with `l` the block's number, from 1.

    A weight that is not trained scales the output of the norm; the norm would undo a scale on its input. `l` counts
    blocks rather than connections: in the paper, attention and feed-forward of one layer have the same scale.

    Reference:
        Sun et al., The Curse of Depth in Large Language Models, 2025. https://arxiv.org/abs/2502.05795
    """

    name = "layer_norm_scaling"

    def configure(self, connection: Residual, *, depth: int, per_block: int) -> Residual:
        """Returns the connection with the scale after its norm."""
        del depth, per_block
        needs_position(self.name, connection, "pre")
        scale = FixedScale(name=_NORM_SCALE, dtype=connection.dtype_policy)
        return with_arguments(connection, branch=[scale, *connection.branch])

    def plan(self, *, depth: int, per_block: int) -> DepthPlan:
        """Returns the values of the scales."""
        del per_block
        factors = np.arange(1, depth + 1, dtype="float32") ** -0.5

        def gains(connection: Residual) -> Gains:
            scales = [s for s in connection.branch if isinstance(s, FixedScale) and s.name == _NORM_SCALE]
            return [(scale.factor, factors) for scale in scales]

        return DepthPlan(gains=gains)
