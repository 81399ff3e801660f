"""How a stack's weights are counted and named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


class BlockCount(int):
    """A number of weights that says, where Keras prints it in a summary, how the blocks make it up.

    Args:
        total: Number of weights in all.
        depth: Number of blocks.
        execution: How the blocks are applied.
        outside: How many of the weights belong to no block.
    """

    depth: int
    execution: str
    outside: int

    def __new__(cls, total: int, depth: int, execution: str, outside: int) -> BlockCount:
        """Makes the number."""
        made = super().__new__(cls, total)
        made.depth, made.execution, made.outside = depth, execution, outside
        return made

    def __format__(self, form: str) -> str:
        number = super().__format__(form)
        if form != ",":
            return number
        each, rest = divmod(self - self.outside, self.depth)
        share = f"{each:,}" if rest == 0 else f"about {each:,}"
        return f"{number}\n{self.depth:,} × {share}\n{self.execution}"


def distinct(names: Sequence[str]) -> list[str]:
    """Returns the names, those that occur more than once with their number behind them."""
    often = {name for name, times in Counter(names).items() if times > 1}
    return [f"{name}:{index}" if name in often else name for index, name in enumerate(names)]
