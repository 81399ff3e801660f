"""The stages of a net: runs of blocks between which the shape of the stream stays the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_residual.xray.rules.checks import begins_stage


@dataclass(frozen=True, slots=True)
class Stage:
    """Blocks `start` to `stop - 1`.

    Args:
        start: Index of the first block.
        stop: Index behind the last block.
        shape: Shape of the stream behind it, without the batch, as a page shows it.
    """

    start: int
    stop: int
    shape: str


def stages(blocks: Sequence[Mapping[str, Any]]) -> list[Stage]:
    """Returns the stages in order; one for a net of layers, which has no stream that keeps its shape.

    Args:
        blocks: The entries of the blocks.
    """
    starts = [i for i, block in enumerate(blocks) if i == 0 or begins_stage(block, blocks[i - 1])]
    ends = [*starts, len(blocks)][1:]
    return [Stage(a, b, shape_of(blocks[b - 1])) for a, b in zip(starts, ends, strict=True)]


def shape_of(block: Mapping[str, Any]) -> str:
    """Returns the shape of the stream behind a block, for example "8 × 8 × 16"."""
    return " × ".join(str(size) for size in block.get("shape") or ())
