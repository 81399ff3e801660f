"""The interface of depth rules: what the connections of a stack get to keep it trainable."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_residual._arguments import owner_of
from keras_residual._errors import bad_argument
from keras_residual.residual.configured import arguments_of, value_of_argument
from keras_residual.residual.merges import AddMerge
from keras_residual.residual.residual import Residual
from keras_residual.residual.shapes import channel_axis, sublayers

_NORMS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
)

Gains = list[tuple[keras.Variable, np.ndarray]]


def _no_gains(connection: Residual) -> Gains:
    del connection
    return []


@dataclass(frozen=True, kw_only=True)
class DepthPlan:
    """The values that a rule gives to the connections of one stack.

    Args:
        branch_scale: Factor on each branch, `(depth, per_block)`, or None for 1.
        skip_scale: Factor on each skip path, likewise.
        branch_input_scale: Factor on what each branch receives, likewise.
        gains: Returns the weights of a built connection whose initial values are scaled, each with its factors for all
            blocks, `(depth,)`.
        learning_rate: Factor on the learning rate that the rule prescribes; applying it is up to the user.
    """

    branch_scale: np.ndarray | None = None
    skip_scale: np.ndarray | None = None
    branch_input_scale: np.ndarray | None = None
    gains: Callable[[Residual], Gains] = field(default=_no_gains)
    learning_rate: float = 1.0

    def describe(self, connection: Residual) -> str:
        """Describes what the plan does to a built connection, with ranges, one line per scale or weight."""
        scales = {name: getattr(self, name) for name in ("branch_scale", "skip_scale", "branch_input_scale")}
        lines = [f"{name}: {_range(values)}" for name, values in scales.items() if values is not None]
        lines += [f"{v.path}: initial values times {_range(factors)}" for v, factors in self.gains(connection)]
        if self.learning_rate != 1:
            lines.append(f"learning rate: times {self.learning_rate:.4g}, which is yours to set")
        return "\n".join(lines) or "the plan changes nothing"


def _range(values: np.ndarray) -> str:
    least, most = float(np.min(values)), float(np.max(values))
    return f"{least:.4g}" if least == most else f"{least:.4g} … {most:.4g}"


class DepthRule(ABC):
    """A way to keep a stack trainable at any depth. Saved by the arguments of its constructor."""

    name: str

    def configure(self, connection: Residual, *, depth: int, per_block: int) -> Residual:
        """Returns the connection with the layers that the rule adds; raises if its arguments contradict the rule.

        Args:
            connection: A connection that is not built; the returned one takes over its layers.
            depth: Number of blocks in the stack.
            per_block: Number of connections in a block.
        """
        del depth, per_block
        return connection

    @abstractmethod
    def plan(self, *, depth: int, per_block: int) -> DepthPlan:
        """Returns the values for the connections of such a stack."""

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {name: value_of_argument(self, name) for name in arguments_of(type(self))}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DepthRule:
        """Makes the rule from `get_config`'s dictionary."""
        return cls(**config)


def constant(value: float, depth: int, per_block: int) -> np.ndarray:
    """Returns one factor for all connections."""
    return np.full((depth, per_block), value, "float32")


def axis_of(connection: Residual) -> int:
    """Returns the channel axis of the layers of a connection that is not built."""
    # For rank 3, since the rank is not known yet: only a layer that says so has its channels first there.
    return channel_axis([*(connection.preactivation or ()), *connection.branch], 3)


def needs_position(rule: str, connection: Residual, *positions: str) -> None:
    """Raises unless the norms of the connection are at these positions."""
    if set(connection._norm_positions) != set(positions):
        wanted = repr(positions[0]) if len(positions) == 1 else repr(positions)
        rule_text = f"{wanted} with a norm, for depth_rule={rule!r}"
        received = connection.norm_position if connection.norm is not None else None
        raise bad_argument(owner_of(connection), "norm_position", rule_text, received)


def needs_no_norm(rule: str, connection: Residual) -> None:
    """Raises if the connection has a norm, as an argument or among its layers."""
    way_out = "The rule stands in for norms: leave them out, or choose a rule that goes with them."
    if connection.norm is not None:
        rule_text = f"None, for depth_rule={rule!r}"
        raise bad_argument(owner_of(connection), "norm", rule_text, connection.norm, way_out)
    for layer in sublayers(connection):
        if isinstance(layer, _NORMS):
            found = f"{layer.name!r} ({type(layer).__name__})"
            raise bad_argument(owner_of(connection), "branch", f"without norms for depth_rule={rule!r}", found, way_out)


def needs_no_scale(rule: str, connection: Residual, argument: str) -> None:
    """Raises if the connection has a scale that the rule sets itself."""
    value = getattr(connection, argument)
    if value is not None:
        rule_text = f"None, since depth_rule={rule!r} sets it"
        raise bad_argument(owner_of(connection), argument, rule_text, value, "Leave out one of the two.")


def needs_sum(rule: str, connection: Residual) -> None:
    """Raises unless the connection adds its two paths."""
    merge = connection.merge
    if merge != "add" and not isinstance(merge, (AddMerge, keras.layers.Add)):
        raise bad_argument(owner_of(connection), "merge", f"'add', for depth_rule={rule!r}", merge)
