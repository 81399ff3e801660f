"""One thing that is wrong with a net, and the rule that finds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from keras_residual._errors import printable

Block = Mapping[str, Any]
"""The entry of a block in a report, or its quantities of the whole."""

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
        unless: Rules of which this one's finding is a consequence: it is silent where one of them has spoken.
        final: Whether the numbers of the later rules mean nothing where this one applies.
        reaches: The blocks that the fault reaches beside those that the rule names; by default none.
    """

    name: str
    find: Find
    threshold: float
    in_words: str
    because: str
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
    unless: tuple[str, ...] = (),
    final: bool = False,
    reaches: Reach | None = None,
) -> Callable[[Find], Rule]:
    """Returns what makes a rule of a function, whose name becomes the rule's; arguments as of `Rule`."""

    def made(find: Find) -> Rule:
        return Rule(
            name=find.__name__,
            find=find,
            threshold=threshold,
            in_words=in_words,
            because=because,
            unless=unless,
            final=final,
            reaches=reaches,
        )

    return made
