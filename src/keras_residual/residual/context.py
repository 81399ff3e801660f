"""What a stack tells each connection about its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthContext:
    """A connection's place in a stack and the values that depend on it: numbers, or scalar tensors in a scanned stack.

    Args:
        index: Index of the block in its stack, from 0.
        drop_path_rate: Rate in `[0, 1)` that replaces the connection's own; None keeps that.
        branch_scale: Factor on the branch, in addition to the connection's own scale; None for 1.
        skip_scale: Factor on the skip path, in addition to the connection's own; None for 1.
        branch_input_scale: Factor on the input of the branch; None for 1.
    """

    index: Any = 0
    drop_path_rate: Any = None
    branch_scale: Any = None
    skip_scale: Any = None
    branch_input_scale: Any = None
