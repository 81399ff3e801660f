"""Admin: learnable scales on the skip paths of a post-norm stack, initialised by one forward pass."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual._arguments import owner_of
from keras_residual._errors import bad_argument
from keras_residual.residual.residual import Residual
from keras_residual.residual.scales import LayerScale
from keras_residual.residual.serialization import register
from keras_residual.stacks.depth_rules.base import (
    DepthPlan,
    DepthRule,
    axis_of,
    needs_no_scale,
    needs_position,
    needs_sum,
)
from keras_residual.stacks.observation import observe
from keras_residual.stacks.pattern import with_arguments

_OMEGA = "omega"


@register
class Admin(DepthRule):
    """Admin: `y = LN(omega * x + F(x))`, with one learnable `omega` per channel, to be set by `admin_profile`.

    Reference:
        Liu et al., Understanding the Difficulty of Training Transformers, 2020. https://arxiv.org/abs/2004.08249
    """

    name = "admin"

    def configure(self, connection: Residual, *, depth: int, per_block: int) -> Residual:
        """Returns the connection with `omega`, which starts at 1."""
        del depth, per_block
        needs_position(self.name, connection, "post")
        needs_no_scale(self.name, connection, "skip_scale")
        needs_sum(self.name, connection)
        omega = LayerScale(1.0, axis=axis_of(connection), name=_OMEGA, dtype=connection.dtype_policy)
        return with_arguments(connection, skip_scale=omega)

    def plan(self, *, depth: int, per_block: int) -> DepthPlan:
        """Returns an empty plan: the scales depend on a batch of data."""
        del depth, per_block
        return DepthPlan()


def admin_profile(stack: Any, x: Any) -> np.ndarray:
    """Sets each `omega` to the standard deviation that the stream would have at its connection without norms.

    `omega_1 = 1` and `omega_i^2 = Var[x_0] + Var[F_1] + … + Var[F_(i-1)]`, measured in one forward pass in training
    mode with each `omega` at 1. The sum in the paper starts with the branches; like the authors' code, this one
    includes the input `x_0`. Call it once, before training; no other weight changes.

    Args:
        stack: A `ResidualStack` with `depth_rule="admin"`.
        x: A batch of inputs of the stack, `(batch, …, channels)`.

    Returns:
        The values that were set, `(connections,)`.

    Raises:
        ValueError: If the stack has another rule.

    Example:
        >>> block = kr.Residual(keras.layers.Dense(4), norm="layer_norm", norm_position="post")
        >>> stack = kr.ResidualStack(block, depth=3, depth_rule="admin")
        >>> admin_profile(stack, np.random.default_rng(0).normal(size=(8, 4))).shape
        (3,)

    Reference:
        Liu et al., Understanding the Difficulty of Training Transformers, 2020. https://arxiv.org/abs/2004.08249,
        section 4.3; https://github.com/LiyuanLucasLiu/Transformer-Clinic
    """
    if not isinstance(getattr(stack, "depth_rule", None), Admin):
        raise bad_argument("admin_profile", "stack", "a ResidualStack with depth_rule='admin'", stack)

    if not stack.built:
        stack.build(tuple(np.shape(x)))
    weights = stack.get_stacked_weights()
    names = [name for name in weights if name.split("/")[-2:-1] == [_OMEGA]]
    if len(names) != stack.per_block:
        raise ValueError(f"{owner_of(stack)}: {len(names)} weights are named omega, for {stack.per_block} connections.")
    stack.set_stacked_weights({name: np.ones_like(weights[name]) for name in names})

    def variances(received: Any, added: Any) -> dict[str, Any]:
        return {name: ops.var(ops.cast(x, "float32")) for name, x in (("received", received), ("added", added))}

    # The scope discards what the pass would change, such as moving averages.
    with keras.StatelessScope(), observe(stack, variances) as seen:
        stack(x, training=True)
        received, added = (np.asarray(ops.convert_to_numpy(seen[name])) for name in ("received", "added"))
    omegas = np.sqrt(np.concatenate([[1.0], received[0] + np.cumsum(added)[:-1]]))
    by_block = omegas.reshape(-1, stack.per_block)
    stack.set_stacked_weights(
        {name: np.broadcast_to(by_block[:, i, None], weights[name].shape) for i, name in enumerate(names)}
    )
    return omegas
