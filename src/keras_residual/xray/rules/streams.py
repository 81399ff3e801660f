"""Rules on stacks of several streams."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from keras_residual.xray.quantities.streams import DOUBLE_STOCHASTICITY, TRANSPORT_GAIN
from keras_residual.xray.rules.rule import all_behind, rule
from keras_residual.xray.stages import Block


@rule(
    turn=60,
    threshold=TRANSPORT_GAIN.high,
    in_words="The mixing of the streams makes the signal grow or shrink from block to block",
    because="a product of free matrices grows or dies by a factor a block, and all that passes the shortcuts with it; "
    "it reached 3000 in Hyper-Connections, 1.6 in mHC (Xie et al. 2025, https://arxiv.org/abs/2512.24880)",
    reaches=all_behind,
)
def transport_gain(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds the block where the matrices that carry the streams have come to too large a gain, or too small a one."""
    for stack in _by_stack(blocks, "transport_gain"):
        for block in stack:
            gain = block["transport_gain"]
            if gain > threshold or gain < TRANSPORT_GAIN.low:
                yield (
                    block["name"],
                    f"the matrices that carry the streams multiply to a gain of {gain:.2g} from the first block to "
                    f"here, and of {stack[-1]['transport_gain']:.2g} to the last",
                    "topology='mhc' of `kr.ResidualStack`, whose matrices are doubly stochastic, or "
                    "'identity_hyper_connections', which does not mix: either has a gain of about 1 at any depth",
                )
                break


@rule(
    turn=60,
    threshold=DOUBLE_STOCHASTICITY.high,
    in_words="The mixing of the streams adds to the signal or takes from it, which it should not",
    because="for large logits Sinkhorn's iterations end before the matrix is doubly stochastic, and mixing adds to the "
    "sum of the streams again (mHC-lite 2026, https://arxiv.org/abs/2601.05732)",
)
def double_stochasticity(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds the blocks of mHC whose matrices should be doubly stochastic, and are not."""
    for stack in _by_stack(blocks, "double_stochasticity"):
        for block in stack:
            if block["topology"] == "MHC" and block["double_stochasticity"] > threshold:
                yield (
                    block["name"],
                    "the rows and columns of the matrices that mix its streams miss the sum 1 by "
                    f"{block['double_stochasticity']:.2g}",
                    "topology='mhc_lite' of `kr.ResidualStack`, which is exact, for up to 5 streams; or "
                    "`kr.topologies.MHC(iterations=…)` with more iterations than it has",
                )


MOST_APART = 0.9
"""Streams whose mean cosine has been below this have parted."""


@rule(
    turn=120,
    threshold=0.99,
    in_words="The parallel streams have become copies of one another",
    because="the product of many doubly stochastic matrices is a plain mean; `n` streams then cost what they cost and "
    "hold what one does (https://arxiv.org/abs/2606.03483)",
    reaches=all_behind,
)
def streams_alike(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
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
            yield (
                stack[-alike]["name"],
                f"from here on its streams are copies of one another ({alike} blocks): their mean cosine is "
                f"{min(cosines[-alike:]):.4f}, and {min(parted):.2f} before",
                "topology='identity_hyper_connections' of `kr.ResidualStack`, whose streams are never mixed, or fewer "
                "of them: `streams=` of the topology",
            )


def _by_stack(blocks: Sequence[Block], quantity: str) -> list[list[Block]]:
    """Returns the blocks that have a quantity, those of each stack by themselves."""
    stacks: dict[str, list[Block]] = {}
    for block in blocks:
        if block.get(quantity) is not None:
            stacks.setdefault(re.sub(r"(\.\d+)+$", "", block["name"]), []).append(block)
    return list(stacks.values())
