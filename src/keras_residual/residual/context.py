"""What a stack tells a connection about its place in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthContext:
    """A connection's place in a stack, and what changes with it: numbers, or scalar tensors in a scanned stack.

    Args:
        index: Index of the block in its stack, from 0.
        drop_path_rate: Rate in `[0, 1)` in place of the connection's own; None for its own.
        branch_scale: Factor on the branch, beside the connection's own scale; None for 1.
        skip_scale: Factor on the skip path, beside the connection's own; None for 1.
        branch_input_scale: Factor on what the branch receives; None for 1.
    """

    index: Any = 0
    drop_path_rate: Any = None
    branch_scale: Any = None
    skip_scale: Any = None
    branch_input_scale: Any = None
