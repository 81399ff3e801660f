"""A rule of advice: what it finds, from which threshold on, what to change and why, and which blocks it reaches."""

from __future__ import annotations

import dataclasses
from bisect import insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

from keras_residual._errors import printable
from keras_residual.xray.stages import Block

MOST_BLOCKS = 4
"""Blocks that one rule names one by one; where it finds more, one entry speaks of all."""

LAST = 1000
"""The turn of a rule that is not given one."""

_MESSAGE = 2000

Find = Callable[[Sequence[Block], Block, float], Iterator[tuple[str, str, str]]]
"""`(blocks, model, threshold) -> (block, finding, change)`, once for each block that the rule speaks of."""

Reach = Callable[[Sequence[Block], int | None], Sequence[int]]
"""`(blocks, first) -> indices` of the blocks that a fault reaches; `first` is None where no block holds it."""


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing that is wrong.

    Args:
        block: Name of the block where it is, or where it begins; or what else holds it, such as `"input"` or a layer.
        finding: What is wrong there, with the number.
        change: What to change, with the argument of this library that changes it.
        because: Why, with the paper.
        rule: Name of the rule, as in `keras_residual.xray.rules.RULES`.
    """

    block: str
    finding: str
    change: str
    because: str
    rule: str = ""

    def __str__(self) -> str:
        """Returns two sentences that name the block, on one line and without what a terminal would obey."""
        where, finding = printable(self.block), printable(self.finding, _MESSAGE)
        return f"{where}: {finding}. Change: {printable(self.change, _MESSAGE)}. Why: {self.because}."

    def to_dict(self) -> dict[str, str]:
        """Returns the fields by name."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """A rule of advice: called with a report's blocks and its quantities of the whole, it returns what it found.

    Args:
        name: What the rule is called.
        find: The function that finds the blocks, and says what is wrong there and what to change.
        threshold: The number that it compares with.
        in_words: What it has found, for a reader without prior knowledge.
        because: Why this is wrong, with the paper.
        turn: When the rule is asked, from 0 on: what makes the numbers of others meaningless comes first. Rules of one
            turn are asked in the order of their file.
        unless: Rules of which this one's finding is a consequence: it is silent where one of them has spoken. Their
            turns are before its own.
        final: Whether the numbers of the later rules mean nothing where this one applies.
        reaches: The blocks that the fault reaches beside those that the rule names; by default none.
    """

    name: str
    find: Find
    threshold: float
    in_words: str
    because: str
    turn: int = LAST
    unless: tuple[str, ...] = ()
    final: bool = False
    reaches: Reach | None = None

    def __call__(self, blocks: Sequence[Block], model: Block) -> list[Advice]:
        """Returns one entry for each block that the rule speaks of."""
        found = self.find(blocks, model, self.threshold)
        return [Advice(block, finding, change, self.because, self.name) for block, finding, change in found]


def rule(
    *,
    in_words: str,
    because: str,
    threshold: float = 0.0,
    turn: int = LAST,
    unless: tuple[str, ...] = (),
    final: bool = False,
    reaches: Reach | None = None,
) -> Callable[[Find], Rule]:
    """Returns what makes a rule of a function, under its name, and adds it to `RULES`; arguments as of `Rule`."""

    def made(find: Find) -> Rule:
        new = Rule(
            name=find.__name__,
            find=find,
            threshold=threshold,
            in_words=in_words,
            because=because,
            turn=turn,
            unless=unless,
            final=final,
            reaches=reaches,
        )
        insort(RULES, new, key=lambda rule: rule.turn)
        return new

    return made


RULES: list[Rule] = []
"""The rules by their turns."""


def advise(blocks: Sequence[Block], model: Block) -> list[Advice]:
    """Returns the advice that follows from a report's numbers; empty where nothing is wrong.

    Args:
        blocks: The entries of the blocks.
        model: The quantities of the whole.
    """
    found: list[Advice] = []
    for rule in RULES:
        if not blocks or {entry.rule for entry in found} & set(rule.unless):
            continue
        here = rule(blocks, model)
        if len(here) > MOST_BLOCKS:
            finding = f"{here[0].finding}; the same holds for {len(here) - 1} more blocks"
            here = [dataclasses.replace(here[0], finding=finding)]
        found += here
        if here and rule.final:
            break
    return found


# --- What a fault reaches --------------------------------------------------------------------------------------------


def every_block(blocks: Sequence[Block], first: int | None) -> Sequence[int]:
    """Returns all blocks."""
    return range(len(blocks))


def all_behind(blocks: Sequence[Block], first: int | None) -> Sequence[int]:
    """Returns the blocks behind the first one that a rule names."""
    return [] if first is None else range(first + 1, len(blocks))
