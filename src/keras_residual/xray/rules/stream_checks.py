"""How the rules on stacks of several streams find the blocks that they speak of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Block = Mapping[str, Any]

MOST_APART = 0.9
"""Streams whose mean cosine has been below this have parted."""


def transport_gain(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Finds the block where the matrices that carry the streams have come to too large a gain, or too small a one."""
    for stack in _by_stack(blocks, "transport_gain"):
        for block in stack:
            gain = block["transport_gain"]
            if gain > threshold or gain < 1 / threshold:
                yield block["name"], {"gain": gain, "last": stack[-1]["transport_gain"]}
                break


def double_stochasticity(
    blocks: Sequence[Block], model: Block, threshold: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Finds the blocks of mHC whose matrices should be doubly stochastic, and are not."""
    for stack in _by_stack(blocks, "double_stochasticity"):
        for block in stack:
            if block["topology"] == "MHC" and block["double_stochasticity"] > threshold:
                yield block["name"], {"error": block["double_stochasticity"]}


def streams_alike(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Finds where streams that had parted become alike for the rest of their stack.

    Those that have never parted are copies still, as at the beginning of training.
    """
    for stack in _by_stack(blocks, "stream_collapse"):
        cosines = [block["stream_collapse"] for block in stack]
        alike = 0
        while alike < len(cosines) and cosines[-1 - alike] >= threshold:
            alike += 1
        parted = cosines[: len(cosines) - alike]
        if parted and min(parted) < MOST_APART and alike >= max(2, len(stack) // 4):
            yield stack[-alike]["name"], {"cosine": min(cosines[-alike:]), "before": min(parted), "count": alike}


def _by_stack(blocks: Sequence[Block], quantity: str) -> list[list[Block]]:
    """Returns the blocks that have a quantity, those of each stack by themselves."""
    stacks: dict[str, list[Block]] = {}
    for block in blocks:
        if block.get(quantity) is not None:
            stacks.setdefault(re.sub(r"(\.\d+)+$", "", block["name"]), []).append(block)
    return list(stacks.values())


STREAM_CHECKS = {check.__name__: check for check in (transport_gain, double_stochasticity, streams_alike)}
"""These checks by name."""
