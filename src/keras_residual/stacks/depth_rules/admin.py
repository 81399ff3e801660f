"""Admin: weights on the skip paths of a post-norm stack that one forward pass finds."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual._errors import bad_argument
from keras_residual.layers._checks import owner_of
from keras_residual.layers.residual import Residual
from keras_residual.layers.scales import LayerScale
from keras_residual.layers.serialization import register
from keras_residual.stacks.depth_rules.base import (
    DepthPlan,
    DepthRule,
    needs_no_scale,
    needs_position,
    with_arguments,
)
from keras_residual.stacks.observe import observe


@register
class Admin(DepthRule):
    """Admin: `y = LN(omega * x + F(x))`, with one learnable `omega` a channel, to be set by `admin_profile`.

    Reference:
        Liu et al., Understanding the Difficulty of Training Transformers, 2020. https://arxiv.org/abs/2004.08249
    """

    name = "admin"

    def configure(self, connection: Residual, *, depth: int, per_block: int) -> Residual:
        """Returns the connection with `omega`, which starts at 1."""
        del depth, per_block
        needs_position(self.name, connection, "post")
        needs_no_scale(self.name, connection, "skip_scale")
        omega = LayerScale(1.0, name="omega", dtype=connection.dtype_policy)
        return with_arguments(connection, skip_scale=omega)

    def plan(self, *, depth: int, per_block: int) -> DepthPlan:
        """Returns nothing: what the scales are, a batch must show."""
        del depth, per_block
        return DepthPlan()


def admin_profile(stack: Any, x: Any) -> np.ndarray:
    """Sets `omega` of each connection to the root of the sum of the variances of the branches before it.

    The first keeps 1. To be called once, before training.

    Args:
        stack: A `ResidualStack` with `depth_rule="admin"`.
        x: A batch of what goes into the stack, `(batch, …, channels)`.

    Returns:
        The values that were set, one a connection.

    Raises:
        ValueError: If the stack has another rule.

    Reference:
        Liu et al., Understanding the Difficulty of Training Transformers, 2020. https://arxiv.org/abs/2004.08249,
        section 4.3
    """
    if not isinstance(getattr(stack, "depth_rule", None), Admin):
        raise bad_argument("admin_profile", "stack", "a ResidualStack with depth_rule='admin'", stack)

    def variance(received: Any, added: Any) -> dict[str, Any]:
        del received
        return {"variance": ops.var(ops.cast(added, "float32"))}

    # The scope takes what the pass would change, such as moving averages.
    with keras.StatelessScope(), observe(stack, variance) as seen:
        stack(x, training=True)
        variances = np.asarray(ops.convert_to_numpy(seen["variance"]))
    omegas = np.sqrt(np.concatenate([[1.0], np.cumsum(variances)[:-1]]))
    weights = stack.get_stacked_weights()
    names = [name for name in weights if name.split("/")[-2:-1] == ["omega"]]
    if len(names) != stack.per_block:
        raise ValueError(f"{owner_of(stack)}: {len(names)} weights are named omega, for {stack.per_block} connections.")
    by_block = omegas.reshape(-1, stack.per_block)
    stack.set_stacked_weights(
        {name: np.broadcast_to(by_block[:, i, None], weights[name].shape) for i, name in enumerate(names)}
    )
    return omegas
