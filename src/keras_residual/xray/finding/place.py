"""A place in a model that the X-ray looks at: one residual connection, or one layer where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_residual.xray.finding.structure import Structure

Weight = tuple[keras.Variable, int | None]
"""A variable, and which slice of it along the leading axis is meant where blocks are stacked in it."""


@dataclass(kw_only=True, slots=True)
class ReportedBlock:
    """One block of the report.

    Args:
        name: How the report names it: the name of the layer, or of the stack with the block's index.
        kind: `"residual"`, `"stack"`, `"add"`, `"concatenate"` or `"layer"`.
        operations: The layers and operations of the branch, with what is in them.
        weights: Its weights.
        structure: What is known of the branch without running it.
        norm: Where there are norms: some of `"pre"`, `"out"`, `"post"`, or empty.
        skip_scale: Factor on the shortcut where it is a known number, else None.
        scaled: Whether a learned or a given factor stands on the branch.
        additive: Whether the two paths are summed, or concatenated, as they are.
        shape_changes: Whether the shortcut is no identity.
        multi_stream: Whether the stack carries several streams.
        stack: The stack that holds the block, if any.
        index: Index of the block in its stack.
    """

    name: str
    kind: str
    operations: Sequence[Any]
    weights: Sequence[Weight]
    structure: Structure
    norm: tuple[str, ...] = ()
    skip_scale: float | None = None
    scaled: bool = False
    additive: bool = True
    shape_changes: bool = False
    multi_stream: bool = False
    stack: Any = None
    index: int = 0

    @property
    def is_connection(self) -> bool:
        """Whether the block has a shortcut."""
        return self.kind != "layer"

    @property
    def frozen(self) -> bool:
        """Whether it has weights that could be trained, and none of them is."""
        trained = [v for v, _ in self.weights if keras.backend.is_float_dtype(v.dtype)]
        return bool(trained) and not any(v.trainable for v in trained)
