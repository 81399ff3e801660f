"""What the connections of a stack are told that depends on their depth: rates of drop path, and scales."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_residual._arguments import share
from keras_residual._errors import bad_argument
from keras_residual.residual.context import DepthContext
from keras_residual.stacks.depth_rules import DepthPlan

_SCALES = ("branch_scale", "skip_scale", "branch_input_scale")


class Contexts:
    """The contexts of all connections of a stack.

    Args:
        rates: Rate of drop path in each block; all 0 for none.
        plan: What the depth rule gives, or None.
        per_block: Number of connections in a block.
    """

    def __init__(self, rates: Sequence[float], plan: DepthPlan | None, per_block: int) -> None:
        self.per_block = per_block
        self.values: dict[str, np.ndarray] = {}
        """What is not the same for all, by the names of `DepthContext`, each `(depth, per_block)`."""
        if any(rates):
            self.values["drop_path_rate"] = np.tile(np.array(rates, "float32")[:, None], (1, per_block))
        for name in _SCALES:
            given = getattr(plan, name, None)
            if given is not None:
                self.values[name] = np.asarray(given, "float32")

    def tensors(self) -> dict[str, Any]:
        """Returns the values as a scan takes them, with the blocks as the leading axis."""
        return {name: ops.convert_to_tensor(values) for name, values in self.values.items()}

    def of_block(self, index: int | None, others: Any) -> list[DepthContext]:
        """Returns the context of each connection of a block.

        Args:
            index: Index of the block, or None in a scan.
            others: In a scan, the block's `"index"`, and its slice of `tensors()` as `"context"`.
        """
        if index is None:
            told, index = others["context"], others["index"]
        else:
            told = {name: [float(value) for value in values[index]] for name, values in self.values.items()}
        each = range(self.per_block)
        return [DepthContext(index=index, **{name: told[name][position] for name in told}) for position in each]


def ramp(owner: str, given: Any, depth: int) -> list[float]:
    """Returns the drop path rate of each block."""
    if isinstance(given, (list, tuple)):
        rates = [share(owner, "drop_path_rate", rate) for rate in given]
        if len(rates) == depth:
            return rates
        if len(rates) != 2:
            rule = f"one rate, a pair (first, last), or one for each of {depth} blocks"
            raise bad_argument(owner, "drop_path_rate", rule, given)
        first, last = rates
    else:
        last = share(owner, "drop_path_rate", given)
        first = 0.0 if depth > 1 else last
    return [float(rate) for rate in np.linspace(first, last, depth)]
