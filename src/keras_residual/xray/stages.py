"""The stages of a net: runs of blocks between which the shape of the stream stays the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Block = Mapping[str, Any]
"""The entry of a block in a report, or its quantities of the whole."""


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


def stages(blocks: Sequence[Block]) -> list[Stage]:
    """Returns the stages in order.

    A net of layers has no stream that keeps its shape: its hidden layers are one stage, and its head, whose outputs
    have a gradient of their own size, is another.

    Args:
        blocks: The entries of the blocks.
    """
    starts = [i for i, block in enumerate(blocks) if i == 0 or begins_stage(block, blocks[i - 1])]
    if len(blocks) > 1 and not connections(blocks):
        starts.append(len(blocks) - 1)
    ends = [*starts, len(blocks)][1:]
    return [Stage(a, b, shape_of(blocks[b - 1])) for a, b in zip(starts, ends, strict=True)]


def begins_stage(block: Block, before: Block) -> bool:
    """Returns whether the stream has another shape behind a block than behind the one before it."""
    if block["kind"] in ("layer", "concatenate"):
        return False
    return block["projected"] or block["shape"] != before["shape"]


def shape_of(block: Block) -> str:
    """Returns the shape of the stream behind a block, for example "8 × 8 × 16"."""
    return " × ".join(str(size) for size in block.get("shape") or ())


def connections(blocks: Sequence[Block]) -> list[Block]:
    """Returns the blocks that have a shortcut."""
    return [block for block in blocks if block["kind"] != "layer"]


def hidden(blocks: Sequence[Block]) -> Sequence[Block]:
    """Returns the blocks without the head of a net of layers."""
    return blocks if connections(blocks) or len(blocks) < 2 else blocks[:-1]
