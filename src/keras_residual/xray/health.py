"""The health of each block and the verdict on the whole: nothing is called healthy beside an unusual number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from keras_residual.xray.quantities import QUANTITIES
from keras_residual.xray.quantities.quantity import Quantity
from keras_residual.xray.rules import RULES, Advice
from keras_residual.xray.stages import Block

HEALTHY, UNUSUAL, AFFECTED, ILL = "healthy", "unusual", "affected", "ill"
SIGNS = {HEALTHY: "✓", UNUSUAL: "~", AFFECTED: "!", ILL: "✕"}
"""What stands beside each colour, for those who do not see it; from the best to the worst."""


class Findings(Protocol):
    """What a page or a table needs of a report."""

    @property
    def blocks(self) -> Sequence[Block]:
        """The entries of the blocks."""
        ...

    @property
    def model(self) -> Block:
        """The quantities of the whole."""
        ...

    @property
    def advice(self) -> Sequence[Advice]:
        """What the rules said of them."""
        ...


@dataclass(slots=True)
class Health:
    """What is known of one block.

    Args:
        named: Rules that name it.
        suffers: Rules that name something else, and whose fault reaches this block.
        odd: Quantities whose values are outside their usual range.
    """

    named: list[str] = field(default_factory=list)
    suffers: list[str] = field(default_factory=list)
    odd: list[Quantity] = field(default_factory=list)

    @property
    def level(self) -> str:
        """The worst of it: `"healthy"`, `"unusual"`, `"affected"` or `"ill"`."""
        return ILL if self.named else AFFECTED if self.suffers else UNUSUAL if self.odd else HEALTHY


def healths(blocks: Sequence[Block], model: Block, advice: Sequence[Advice]) -> list[Health]:
    """Returns the health of each block.

    Advice names at most a few blocks of one fault; here each block that the rule finds is named.

    Args:
        blocks: The entries of the blocks.
        model: The quantities of the whole.
        advice: What the rules said of them.
    """
    found = [Health() for _ in blocks]
    for quantity in QUANTITIES:
        for health, odd in zip(found, quantity.odd(blocks, model), strict=True):
            health.odd += [quantity] if odd else []
    spoken = {entry.rule for entry in advice}
    for rule in RULES:
        if rule.name not in spoken:
            continue
        names = {entry.block for entry in rule(blocks, model)}
        named = [i for i, block in enumerate(blocks) if block["name"] in names]
        for index in named:
            found[index].named.append(rule.name)
        reached = rule.reaches(blocks, named[0] if named else None) if rule.reaches else ()
        for index in set(reached) - set(named):
            found[index].suffers.append(rule.name)
    return found


def verdict(advice: Sequence[Advice], health: Sequence[Health]) -> tuple[str, str]:
    """Returns how the whole is, as a level, and in words.

    Args:
        advice: What the rules said.
        health: That of each block.
    """
    if advice:
        return ILL, f"{len(advice)} {'thing' if len(advice) == 1 else 'things'} to change"
    odd = sum(one.level != HEALTHY for one in health)
    if odd:
        return UNUSUAL, f"Nothing to change, but {odd} of {len(health)} blocks have numbers outside their usual range"
    return HEALTHY, "Healthy: nothing to change"
