"""What follows from the numbers: the rules, applied to a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from keras_residual.xray.rules.checks import CHECKS
from keras_residual.xray.rules.rules import RULES, Rule

MOST_BLOCKS = 4
"""Blocks that one rule names one by one; where it finds more, one entry speaks of all."""


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing that is wrong.

    Args:
        block: Name of the block where it is, or where it begins.
        finding: What is wrong there, with the number.
        change: What to change, with the argument of this library that changes it.
        because: Why, with the paper.
        rule: Name of the rule in `RULES`.
    """

    block: str
    finding: str
    change: str
    because: str
    rule: str = ""

    def __str__(self) -> str:
        """Returns two sentences that name the block."""
        return f"{self.block}: {self.finding}. Change: {self.change}. Because {self.because}."

    def to_dict(self) -> dict[str, str]:
        """Returns the fields by name."""
        return asdict(self)


def advise(blocks: Sequence[Mapping[str, Any]], model: Mapping[str, Any]) -> list[Advice]:
    """Returns the advice that follows from a report's numbers; empty where nothing is wrong.

    Args:
        blocks: The entries of the blocks.
        model: The quantities of the whole.
    """
    found: list[Advice] = []
    spoken: set[str] = set()
    for rule in RULES:
        if not blocks or spoken & set(rule.unless):
            continue
        here = list(CHECKS[rule.check](blocks, model, rule.threshold))
        found += _entries(rule, here)
        if here:
            spoken.add(rule.name)
        if here and rule.final:
            break
    return found


def _entries(rule: Rule, here: list[tuple[str, dict[str, Any]]]) -> list[Advice]:
    many = f"; and so it is in {len(here) - 1} more blocks" if len(here) > MOST_BLOCKS else ""
    return [
        Advice(name, rule.finding.format(**values) + many, rule.change.format(**values), rule.because, rule.name)
        for name, values in (here[:1] if many else here)
    ]
