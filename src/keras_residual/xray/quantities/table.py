"""The quantities of a report: what each asks, how to read it, which range is usual, and how it is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

from keras_residual.xray.advice import Block
from keras_residual.xray.stages import stages

LEAST_SAMPLES = 16
"""Of fewer samples than this, what holds for each may hold by chance: a unit that is 0 for all of them may be rare."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """The usual range of a quantity. What lies outside is never called healthy; rules take their thresholds from here.

    Args:
        low: Least usual value.
        high: Largest usual value.
        of: What the ends are multiples of: nothing, or `"stage"`, the value at the end of the block's stage. `"input"`
            widens the upper end to what is usual for samples that are alike at the input already.
    """

    low: float = -math.inf
    high: float = math.inf
    of: str = ""

    def limits(self, key: str, blocks: Sequence[Block], model: Block) -> list[tuple[float, float] | None]:
        """Returns the ends for each block; None where they cannot be told.

        Args:
            key: Key of the quantity.
            blocks: The entries of the blocks.
            model: The quantities of the whole.
        """
        if self.of == "input":
            return [(self.low, max(self.high, most_alike(model)))] * len(blocks)
        if self.of != "stage":
            return [(self.low, self.high)] * len(blocks)
        found: list[tuple[float, float] | None] = []
        for stage in stages(blocks):
            unit = blocks[stage.stop - 1].get(key)
            limits = None
            if is_number(unit) and math.isfinite(unit) and unit > 0:
                limits = (self.low * unit, self.high * unit)
            found += [limits] * (stage.stop - stage.start)
        return found

    def in_words(self, *, percent: bool = False) -> str:
        """Returns the range in words, for example "below 20 %"."""
        low, high = (f"{100 * end:g} %" if percent else f"{end:g}" for end in (self.low, self.high))
        if self.of == "stage":
            return f"{low} to {high} times that at the end of its stage"
        if self.low == self.high:
            return low
        words = f"{low} to {high}" if math.isfinite(self.low) else f"below {high}"
        return f"{words}, or as at the input" if self.of == "input" else words


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantity:
    """A number that each block has. One line of `QUANTITIES` puts it into the table, on the page, and into the verdict.

    Args:
        key: Its name in the entries of the blocks.
        label: What a table and the box of a block call it.
        band: Its usual range; None where none is.
        percent: Whether it is a share, shown in percent.
        title: The question above its picture; empty where it has none and only the box of a block shows it.
        words: What is to be seen.
        axis: Title of the upward axis.
        chapter: Key of the chapter in `CHAPTERS` that its picture is in.
        log: Whether the upward axis goes in powers of ten.
        bars: Whether it is drawn as bars from zero, and not as a line.
        neutral: A value at which a line is drawn across.
        domain: Ends of the upward axis; by default those of the values.
        beside: A second quantity, drawn in the same picture: its key and its label.
        only_if_any: Whether the picture is left out where all values are 0.
        dtype: The only type of the model's numbers for which it has a meaning.
        topology: The only topology of a stack for which the band holds.
        samples: Samples of a batch from which on the band holds.
    """

    key: str
    label: str
    band: Band | None = None
    percent: bool = False
    title: str = ""
    words: str = ""
    axis: str = ""
    chapter: str = "blocks"
    log: bool = False
    bars: bool = False
    neutral: float | None = None
    domain: tuple[float, float] | None = None
    beside: tuple[str, str] | None = None
    only_if_any: bool = False
    dtype: str | None = None
    topology: str | None = None
    samples: int = 1

    @property
    def usual(self) -> str:
        """What is usual, in words; empty where nothing is."""
        return "" if self.band is None else self.band.in_words(percent=self.percent)

    def shown(self, value: float) -> str:
        """Returns a value with three digits."""
        return f"{100 * value:.3g} %" if self.percent else f"{value:.3g}"

    def odd(self, blocks: Sequence[Block], model: Block) -> list[bool]:
        """Returns for each block whether its value is outside the usual range.

        Args:
            blocks: The entries of the blocks.
            model: The quantities of the whole.
        """
        few = samples_of(model, self.samples) < self.samples
        if self.band is None or few or self.dtype not in (None, model.get("dtype")):
            return [False] * len(blocks)
        limits = self.band.limits(self.key, blocks, model)
        return [self._is_odd(block, ends) for block, ends in zip(blocks, limits, strict=True)]

    def _is_odd(self, block: Block, limits: tuple[float, float] | None) -> bool:
        value = block.get(self.key)
        if not is_number(value) or self.topology not in (None, block.get("topology")):
            return False
        # What is not a number is in no range.
        return not math.isfinite(value) or (limits is not None and not limits[0] <= value <= limits[1])


def is_number(value: object) -> TypeGuard[float]:
    """Returns whether an entry of a report is a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def samples_of(model: Block, unknown: int = LEAST_SAMPLES) -> int:
    """Returns how many different samples the batch has.

    Args:
        model: The quantities of the whole.
        unknown: What is returned where that is not known.
    """
    different = [array["different"] for array in model.get("inputs") or ()]
    return max(different) if different else model.get("batch", unknown)


def most_alike(model: Block) -> float:
    """Returns the mean cosine between samples at which a tenth of the difference that they have at the input is left.

    Args:
        model: The quantities of the whole.
    """
    before = model.get("sample_cosine_input")
    return -1.0 if not is_number(before) or not math.isfinite(before) else 1 - 0.1 * (1 - before)


CHAPTERS = {
    "learning": "Does every block learn?",
    "signal": "What becomes of the input on its way?",
    "blocks": "What does each block do?",
    "numbers": "Are units or numbers lost?",
    "whole": "The net as a whole",
}
"""The parts of the page, in order."""

QUANTITIES: tuple[Quantity, ...] = (
    # --- Learning ---
    Quantity(
        key="gradient_norm",
        label="gradient",
        title="Does the learning signal reach every block?",
        words="A net learns from its mistakes: a correction, the gradient, starts at the answer (right) and travels "
        "back through all blocks to the input (left). The line shows how strong it is behind each block. It should "
        "stay within the shaded band, neither ten times weaker nor ten times stronger than at the end of its stage. "
        "Where it sinks to the left by powers of ten, the first blocks get no correction and do not learn; where it "
        "climbs to the left, they are thrown about.",
        axis="strength of the gradient",
        chapter="learning",
        log=True,
        band=Band(low=0.1, high=10.0, of="stage"),
    ),
    Quantity(
        key="weight_gradient_ratio",
        label="pull on the weights",
        title="How hard are the weights of each block pulled?",
        words="The gradient of a block's own weights, divided by the size of these weights. Blocks of the same kind "
        "usually lie within some tens of times of one another. A block far below all others hardly learns, one far "
        "above them takes the largest steps.",
        axis="gradient / weights",
        chapter="learning",
        log=True,
    ),
    Quantity(
        key="update_ratio",
        label="one step moves the weights by",
        percent=True,
        title="How far does one step of training move the weights?",
        words="The part of its weights that one step of the optimizer changes. About 0.1 % is usual. Above the shaded "
        "band a step throws away what was learned before: the learning rate is too large. Far below it, training takes "
        "very long.",
        axis="change of the weights in a step",
        chapter="learning",
        log=True,
        band=Band(high=0.1),
    ),
    Quantity(key="gradient_spread", label="difference between examples' gradients"),
    Quantity(key="weight_norm", label="size of the weights"),
    # --- Signal ---
    Quantity(
        key="variance",
        label="variance of the signal",
        title="Does the signal keep its size?",
        words="On its way from the input (left) to the answer (right) the signal is a list of numbers. The solid line "
        "shows how much they vary behind each block. At best it stays level or climbs slowly. One that "
        "climbs by powers of ten ends in numbers too large for the machine, one that falls by powers of ten ends in "
        "nothing. The line of the squared mean should run below: where it overtakes, all numbers drift to one side.",
        axis="variance",
        chapter="signal",
        log=True,
        beside=("squared_mean", "squared mean"),
    ),
    Quantity(
        key="sample_cosine",
        label="likeness of the examples",
        title="Can the net still tell the examples apart?",
        words="How alike two different examples look behind each block: 1 means the same but for size, 0 means nothing "
        "in common. A line that runs up to 1 and stays there: all examples have become one, and no later block can "
        "tell them apart again.",
        axis="likeness (cosine)",
        chapter="signal",
        band=Band(high=0.95, of="input"),
        domain=(-1.0, 1.0),
    ),
    # --- Blocks ---
    Quantity(
        key="branch_ratio",
        label="adds, compared to what it gets",
        title="How much does each block add?",
        words="A residual block adds something to what it gets. This is the size of what it adds, divided by the size "
        "of what it gets. At 1 both are equal; near 0 the block does next to nothing; far above 1 it drowns what came "
        "before. Many blocks below 0.01 at the right end are depth that is paid for and not used. An exact 0 (a "
        "triangle at the bottom) is how blocks with a learned scale begin.",
        axis="added / received",
        log=True,
        neutral=1.0,
    ),
    Quantity(
        key="branch_cosine",
        label="direction of what it adds",
        title="Does it write something new, or erase?",
        words="The direction of what a block adds, compared with what it gets. Around 0 it writes something new. Near "
        "1 it only makes larger what is there, near -1 it erases what is there.",
        axis="cosine",
        neutral=0.0,
        domain=(-1.0, 1.0),
    ),
    Quantity(
        key="share",
        label="share of all that is added",
        percent=True,
        title="Who does the work?",
        words="Of all that the blocks add together, the part that each one adds. Within a stage they are mostly of "
        "one order of magnitude; a single tall bar does the work of all.",
        axis="share",
        bars=True,
    ),
    Quantity(
        key="lesion",
        label="loss rises without it by",
        title="What if a block is switched off?",
        words="Each block is left out once, with its shortcut kept, and the bar shows how much the loss, the measure "
        "of mistakes, rises. In a trained net a short bar is a block that could be dropped, a tall one a block that "
        "all depends on. A bar below zero: the net does better without it.",
        axis="rise of the loss",
        bars=True,
    ),
    Quantity(
        key="chi",
        label="stretches small differences (mean square)",
        title="Does a block stretch or shrink small differences?",
        words="If the input of a block changes a little, how much does its output change? 1 means by as much. Every "
        "block multiplies it: many blocks above 1 make a chaos in which gradients explode, many below 1 a calm in "
        "which they vanish.",
        axis="chi",
        log=True,
        neutral=1.0,
    ),
    Quantity(key="branch_gain", label="gain of its branch"),
    Quantity(
        key="singular_value",
        label="stretches one direction by",
        title="How far is the direction stretched that is stretched most?",
        words="As above, for the one small change that a block answers most strongly. Far above 1, "
        "few directions carry the whole gradient.",
        axis="largest singular value",
        log=True,
        neutral=1.0,
    ),
    Quantity(
        key="stream_collapse",
        label="likeness of the streams",
        title="Do the parallel streams stay different?",
        words="This net carries several streams side by side. The line shows how alike they are. They begin as copies "
        "of one another, at 1, and part in training. Where a trained net comes back to 1, the streams have become one "
        "again, and the others are paid for and not used.",
        axis="likeness (cosine)",
        domain=(-1.0, 1.0),
    ),
    Quantity(
        key="transport_gain",
        label="gain of all mixings up to here",
        band=Band(low=0.03, high=30.0),
        title="Does the mixing of the streams keep the signal's size?",
        words="Before each block the streams are mixed. This is what all mixings up to a block together can multiply "
        "the signal by. It should stay about 1; a line that climbs by powers of ten explodes with depth.",
        axis="gain",
        log=True,
        neutral=1.0,
    ),
    Quantity(key="double_stochasticity", label="error of the mixing of streams", band=Band(high=0.05), topology="MHC"),
    Quantity(
        key="early_exit",
        label="right answers from here",
        percent=True,
        title="From which depth on is the answer known?",
        words="How many examples a simple classifier gets right that sees nothing but what comes out of this block. "
        "It should climb to the right. Where it is flat, the blocks add nothing to the answer.",
        axis="right answers",
        domain=(0.0, 1.0),
    ),
    # --- Units and numbers ---
    Quantity(
        key="dead_units",
        label="units that are always off",
        percent=True,
        title="Are there units that never switch on?",
        words="A ReLU unit is off where its input is negative. One that is off for every example is dead: it passes on "
        "nothing and learns nothing. Some percent are usual; a line above the shaded band is a loss.",
        axis="dead units",
        chapter="numbers",
        band=Band(high=0.2),
        samples=LEAST_SAMPLES,
        domain=(0.0, 1.0),
    ),
    Quantity(
        key="saturated_units",
        label="units at their limit",
        percent=True,
        title="Are there units stuck at their limit?",
        words="A sigmoid or tanh that is pushed to its end hardly moves any more, and lets hardly any gradient "
        "through. A line above the shaded band: most units of the block are stuck.",
        axis="saturated units",
        chapter="numbers",
        band=Band(high=0.5),
        domain=(0.0, 1.0),
    ),
    Quantity(
        key="nan",
        label="not a number (NaN)",
        band=Band(low=0.0, high=0.0),
        percent=True,
        title="Where do numbers break?",
        words="The part of the values that are no numbers (NaN, as from 0/0) or infinite. There should be none. They "
        "spread from the first block, from the left, that has one; the cause is there or in front of it: what to "
        "change says where.",
        axis="broken values",
        chapter="numbers",
        bars=True,
        domain=(0.0, 1.0),
        beside=("inf", "infinite"),
        only_if_any=True,
    ),
    Quantity(key="inf", label="infinite", band=Band(low=0.0, high=0.0), percent=True),
    Quantity(key="gradient_nan", label="gradient that is not a number", band=Band(low=0.0, high=0.0), percent=True),
    Quantity(
        key="gradient_underflow",
        label="gradient too small for float16",
        percent=True,
        title="Is the gradient too small for the numbers of the machine?",
        words="This net computes with short numbers (float16), which have no room for very small values. The line "
        "shows which part of the gradient is lost to that. Above the shaded band most of it is gone.",
        axis="lost values",
        chapter="numbers",
        band=Band(high=0.5),
        domain=(0.0, 1.0),
        dtype="float16",
    ),
)
"""In the order in which the page has them."""

BANDS = {quantity.key: quantity.band for quantity in QUANTITIES if quantity.band is not None}
"""The usual ranges by key of the quantity."""

KINDS = {
    "residual": "residual block: its branch is added to its shortcut",
    "stack": "residual block of a stack",
    "add": "sum of a branch and a shortcut",
    "concatenate": "joins a branch to a shortcut, side by side",
    "layer": "layer without a shortcut",
}
"""What the kinds of block are."""
