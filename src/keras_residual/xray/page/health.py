"""The health of each block: which rules name it, and which faults elsewhere it suffers from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keras_residual.xray.advice import Advice
from keras_residual.xray.page.stages import stages
from keras_residual.xray.rules.checks import CHECKS
from keras_residual.xray.rules.rules import RULES

HEALTHY, AFFECTED, ILL = "healthy", "affected", "ill"
SIGNS = {HEALTHY: "✓", AFFECTED: "!", ILL: "✕"}
"""What stands beside each colour, for those who do not see it."""

Block = Mapping[str, Any]


@dataclass(slots=True)
class Health:
    """What is known of one block.

    Args:
        named: Rules that name it.
        suffers: Rules that name another block, and whose fault reaches this one.
    """

    named: list[str] = field(default_factory=list)
    suffers: list[str] = field(default_factory=list)

    @property
    def level(self) -> str:
        """The worst of it: `"healthy"`, `"affected"` or `"ill"`."""
        return ILL if self.named else AFFECTED if self.suffers else HEALTHY


def healths(blocks: Sequence[Block], model: Block, advice: Sequence[Advice]) -> list[Health]:
    """Returns the health of each block.

    Advice names at most a few blocks of one fault; here each block that the rule finds is named.

    Args:
        blocks: The entries of the blocks.
        model: The quantities of the whole.
        advice: What the rules said of them.
    """
    found = [Health() for _ in blocks]
    spoken = {entry.rule for entry in advice}
    for rule in RULES:
        if rule.name not in spoken:
            continue
        names = {name for name, _ in CHECKS[rule.check](blocks, model, rule.threshold)}
        named = [i for i, block in enumerate(blocks) if block["name"] in names]
        for index in named:
            found[index].named.append(rule.name)
        reaches = REACHES.get(rule.name)
        for index in set(reaches(blocks, named[0], rule.threshold) if reaches and named else ()) - set(named):
            found[index].suffers.append(rule.name)
    return found


# --- How far a fault reaches -----------------------------------------------------------------------------------------

Reach = Callable[[Sequence[Block], int, float], Sequence[int]]


def _all_behind(blocks: Sequence[Block], first: int, threshold: float) -> Sequence[int]:
    return range(first + 1, len(blocks))


def _everywhere(blocks: Sequence[Block], first: int, threshold: float) -> Sequence[int]:
    return range(len(blocks))


def _little_gradient(blocks: Sequence[Block], first: int, threshold: float) -> Sequence[int]:
    last = _gradient(blocks[-1])
    return [i for i, block in enumerate(blocks) if _is_measured(block) and not _gradient(block) > 0.1 * last]


def _much_gradient(blocks: Sequence[Block], first: int, threshold: float) -> Sequence[int]:
    (stage,) = (stage for stage in stages(blocks) if stage.start <= first < stage.stop)
    last = _gradient(blocks[stage.stop - 1])
    return [i for i in range(stage.start, stage.stop) if _gradient(blocks[i]) > 10 * last]


def _is_measured(block: Block) -> bool:
    return block["gradient_norm"] is not None


def _gradient(block: Block) -> float:
    return block["gradient_norm"] if _is_measured(block) else math.nan


def _moved_too_far(blocks: Sequence[Block], first: int, threshold: float) -> Sequence[int]:
    return [i for i, block in enumerate(blocks) if (block["update_ratio"] or 0) > threshold]


def _underflows(blocks: Sequence[Block], first: int, threshold: float) -> Sequence[int]:
    return [i for i, block in enumerate(blocks) if (block["gradient_underflow"] or 0) > threshold]


REACHES: dict[str, Reach] = {
    "not_a_number": _all_behind,
    "overflow": _all_behind,
    "underflow": _underflows,
    "no_step": _everywhere,
    "dead_layer": _everywhere,
    "transport_gain": _all_behind,
    "signal_grows": _all_behind,
    "samples_alike": _all_behind,
    "unused_depth": _all_behind,
    "streams_alike": _all_behind,
    "no_gradient": _little_gradient,
    "post_norm": _little_gradient,
    "gradient_vanishes": _little_gradient,
    "gradient_explodes": _much_gradient,
    "gradient_grows": _much_gradient,
    "learning_rate": _moved_too_far,
}
"""For each rule that names where a fault begins: the blocks that it reaches. Other faults stay in their block."""
