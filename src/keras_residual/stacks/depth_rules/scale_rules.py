"""Rules that scale the branches."""

from __future__ import annotations

import numpy as np

from keras_residual._arguments import owner_of, positive
from keras_residual._errors import bad_argument
from keras_residual.residual.residual import Residual
from keras_residual.residual.scales import LayerScale
from keras_residual.residual.serialization import register
from keras_residual.stacks.depth_rules.base import (
    DepthPlan,
    DepthRule,
    axis_of,
    constant,
    needs_no_norm,
    needs_no_scale,
    needs_sum,
)
from keras_residual.stacks.pattern import with_arguments


@register
class InverseSqrtDepth(DepthRule):
    """Scales each of `L` branches by `1 / sqrt(L)`: the variance of the stream grows by at most a factor `e`.

    This holds for branches that preserve the variance of their input: `(1 + 1 / L)^L < e`.

    Reference:
        Hayou et al., Stable ResNet, 2021. https://arxiv.org/abs/2010.12859
    """

    name = "inverse_sqrt_depth"

    def plan(self, *, depth: int, per_block: int) -> DepthPlan:
        """Returns the scale of the branches."""
        return DepthPlan(branch_scale=constant((depth * per_block) ** -0.5, depth, per_block))


@register
class InverseDepth(DepthRule):
    """Scales each of `L` branches by `1 / L`: CompleteP with `alpha = 1`, in which every layer keeps learning features.

    `L` is the number of connections. In the paper it is the number of layers, of two connections each, relative to a
    base model, which gives the same factor up to a constant. CompleteP's factors on the learning rates of norms and
    biases, on weight decay and on Adam's epsilon belong to the optimizer.

    Reference:
        Dey et al., Don't Be Lazy: CompleteP Enables Compute-Efficient Deep Transformers, 2025.
        https://arxiv.org/abs/2505.01618
    """

    name = "inverse_depth"

    def plan(self, *, depth: int, per_block: int) -> DepthPlan:
        """Returns the scale of the branches."""
        return DepthPlan(branch_scale=constant(1 / (depth * per_block), depth, per_block))


@register
class DepthMuP(DepthRule):
    """Depth-μP: branches scaled by `1 / sqrt(L)`, and Adam's learning rate by the same factor.

    Setting the learning rate is up to the user: multiply it by `plan(…).learning_rate`.

    Reference:
        Yang et al., Tensor Programs VI: Feature Learning in Infinite-Depth Neural Networks, 2023.
        https://arxiv.org/abs/2310.02244
    """

    name = "depth_mup"

    def plan(self, *, depth: int, per_block: int) -> DepthPlan:
        """Returns the scale of the branches and of the learning rate."""
        factor = (depth * per_block) ** -0.5
        return DepthPlan(branch_scale=constant(factor, depth, per_block), learning_rate=factor)


@register
class SkipInitRule(DepthRule):
    """Gives each branch one learnable factor that starts at 0, as in SkipInit and ReZero.

    Reference:
        De & Smith, 2020. https://arxiv.org/abs/2002.10444; Bachlechner et al., 2020. https://arxiv.org/abs/2003.04887
    """

    name = "skip_init"

    def configure(self, connection: Residual, *, depth: int, per_block: int) -> Residual:
        """Returns the connection with the factor."""
        del depth, per_block
        needs_no_scale(self.name, connection, "branch_scale")
        return with_arguments(connection, branch_scale="skip_init")

    def plan(self, *, depth: int, per_block: int) -> DepthPlan:
        """Returns an empty plan."""
        del depth, per_block
        return DepthPlan()


@register
class LayerScaleRule(DepthRule):
    """Gives each branch one learnable factor per channel, which starts smaller in a deeper stack.

    CaiT's initial values are 0.1 up to 18 blocks, 1e-5 up to 24, and 1e-6 beyond. Blocks are counted rather than
    connections: a block of CaiT has two, attention and feed-forward.

    Reference:
        Touvron et al., Going Deeper with Image Transformers, 2021. https://arxiv.org/abs/2103.17239, section 2
    """

    name = "layer_scale"

    def configure(self, connection: Residual, *, depth: int, per_block: int) -> Residual:
        """Returns the connection with the factors."""
        del per_block
        needs_no_scale(self.name, connection, "branch_scale")
        init = 0.1 if depth <= 18 else 1e-5 if depth <= 24 else 1e-6
        axis = axis_of(connection)
        scale = LayerScale(init, axis=axis, name="branch_scale", dtype=connection.dtype_policy)
        return with_arguments(connection, branch_scale=scale)

    def plan(self, *, depth: int, per_block: int) -> DepthPlan:
        """Returns an empty plan."""
        del depth, per_block
        return DepthPlan()


@register
class NFResNet(DepthRule):
    """Normalizer-free: `h' = h + alpha * F(h / beta_l)`, where `beta_l^2 = 1 + l * alpha^2` is the variance of `h`.

    `l` counts the connections before this one, so that the first has `beta = 1`: the input of the stack should have
    unit variance. The branches then receive unit variance and must preserve it: use `ScaledWSConv2D`s in place of
    norms. With `branch_scale="skip_init"` in the connection, which the rule leaves alone, it also has NFNet's skip
    gain.

    Args:
        alpha: Scale of each branch, a finite number above 0.

    Reference:
        Brock et al., Characterizing Signal Propagation to Close the Performance Gap in Unnormalized ResNets, 2021.
        https://arxiv.org/abs/2101.08692, section 3
    """

    name = "nf_resnet"

    def __init__(self, alpha: float = 0.2) -> None:
        self.alpha = positive("NFResNet", "alpha", alpha)

    def configure(self, connection: Residual, *, depth: int, per_block: int) -> Residual:
        """Checks that there is no norm, and that only `alpha` changes the variance of the sum."""
        del depth, per_block
        needs_no_norm(self.name, connection)
        needs_sum(self.name, connection)
        for argument in ("skip_scale", "activation"):
            value = getattr(connection, argument)
            if value is not None:
                rule = f"None, for depth_rule={self.name!r}, which predicts the variance of the sum"
                raise bad_argument(owner_of(connection), argument, rule, value)
        return connection

    def plan(self, *, depth: int, per_block: int) -> DepthPlan:
        """Returns both scales of the branches."""
        order = np.arange(depth * per_block).reshape(depth, per_block)
        inputs = (1 + order * self.alpha**2) ** -0.5
        return DepthPlan(
            branch_scale=constant(self.alpha, depth, per_block), branch_input_scale=inputs.astype("float32")
        )
