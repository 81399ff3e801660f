"""What a depth rule is: what each connection of a stack is given so that the stack stays trainable."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_residual._errors import bad_argument
from keras_residual.layers._checks import owner_of
from keras_residual.layers.residual import Residual

Gains = list[tuple[keras.Variable, np.ndarray]]


def _no_gains(connection: Residual) -> Gains:
    del connection
    return []


@dataclass(frozen=True, kw_only=True)
class DepthPlan:
    """What a rule gives to the connections of one stack.

    Args:
        branch_scale: Factor on each branch, `(depth, per_block)`, or None for 1.
        skip_scale: Factor on each skip path, likewise.
        branch_input_scale: Factor on what each branch receives, likewise.
        gains: Returns, for a built connection, the weights whose initial values are scaled, each with its factor in
            every block, `(depth,)`.
        learning_rate: Factor on the learning rate that goes with the rule.
    """

    branch_scale: np.ndarray | None = None
    skip_scale: np.ndarray | None = None
    branch_input_scale: np.ndarray | None = None
    gains: Callable[[Residual], Gains] = field(default=_no_gains)
    learning_rate: float = 1.0

    def describe(self, connection: Residual) -> str:
        """Returns one line for each weight of a built connection that the plan scales at the start."""
        lines = [
            f"{variable.path}: initial values times {factors.min():.4g} … {factors.max():.4g}"
            for variable, factors in self.gains(connection)
        ]
        return "\n".join(lines) or "no initial value is changed"


class DepthRule(ABC):
    """A way to keep a stack trainable at any depth. Serialisable by its constructor's arguments."""

    name: str

    def configure(self, connection: Residual, *, depth: int, per_block: int) -> Residual:
        """Returns the connection with what the rule needs in it; raises where its own choices contradict the rule.

        Args:
            connection: A connection that is not built; it stays as it is.
            depth: Number of blocks in the stack.
            per_block: Number of connections in a block.
        """
        del depth, per_block
        return connection

    @abstractmethod
    def plan(self, *, depth: int, per_block: int) -> DepthPlan:
        """Returns what the connections of such a stack are given."""

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DepthRule:
        """Makes the rule from `get_config`'s dictionary."""
        return cls(**config)


def everywhere(value: float, depth: int, per_block: int) -> np.ndarray:
    """Returns the same factor for each connection."""
    return np.full((depth, per_block), value, "float32")


def with_arguments(connection: Residual, **changed: Any) -> Residual:
    """Returns a connection of the same configuration but for these arguments."""
    made = Residual.from_config(connection.get_config())
    config = {**made.get_config(), **changed}
    return Residual.from_config(config)


def needs_position(rule: str, connection: Residual, *positions: str) -> None:
    """Raises where the connection's norms are not at these places."""
    if set(connection._norm_positions) != set(positions):
        wanted = repr(positions[0]) if len(positions) == 1 else repr(positions)
        rule_text = f"{wanted} with a norm, for depth_rule={rule!r}"
        received = connection.norm_position if connection.norm is not None else None
        raise bad_argument(owner_of(connection), "norm_position", rule_text, received)


def needs_no_norm(rule: str, connection: Residual) -> None:
    """Raises where the connection has a norm of its own."""
    if connection.norm is not None:
        raise bad_argument(owner_of(connection), "norm", f"None, for depth_rule={rule!r}", connection.norm)


def needs_no_scale(rule: str, connection: Residual, argument: str) -> None:
    """Raises where the connection has a scale that the rule sets."""
    value = getattr(connection, argument)
    if value is not None:
        raise bad_argument(owner_of(connection), argument, f"None, since depth_rule={rule!r} sets it", value)
