"""What a quantity is: how it is measured, in which words it is shown, which range is usual, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

import numpy as np

from keras_residual.xray.quantities.chart import Chart, DepthChart
from keras_residual.xray.stages import Block, stages

LEAST_SAMPLES = 16
"""Below this many samples, a unit that is 0 for every sample may simply fire rarely."""

Of = Literal[
    "stream",
    "branch",
    "values",
    "units",
    "gradient",
    "recurrent gradient",
    "weights",
    "streams",
    "transport",
    "transports",
    "model",
    "request",
    "another",
]


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
    of: Literal["", "stage", "input"] = ""

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
class Passes:
    """What a quantity on request costs: passes of the whole model, beside those of the X-ray itself.

    Args:
        forward: Forward passes.
        forward_by_block: Further ones for each block of the report.
        backward: Backward passes.
        samples: Size of the batch of these passes, where it is not the one that was given.
        beside: What else it takes.
    """

    forward: int
    forward_by_block: int = 0
    backward: int = 0
    samples: int | None = None
    beside: str = ""

    def in_words(self, blocks: int | None = None) -> str:
        """Returns the cost as a phrase.

        Args:
            blocks: Number of blocks, or None to speak of any.
        """
        forward, each = self.forward, self.forward_by_block
        if each and blocks is not None:
            forward, each = forward + each * blocks, 0
        said = f"{forward:,} forward"
        if each:
            said += f" and {each} more for each block"
        if self.backward:
            said += f", {self.backward:,} back"
        if self.samples is not None:
            said += f", of {self.samples} samples"
        return f"{said}; {self.beside}" if self.beside else said


STREAMS_KEPT = "what each block hands on is kept"
"""`Passes.beside` of quantities that store every block's output."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantity:
    """A number that each block has, or the whole: all that measures it and shows it reads it from here.

    Args:
        key: Its name in the entries of the blocks, or among the quantities of the whole.
        definition: What it is, as the documentation says it.
        of: What it is measured of, which decides how `by` is called:

            - `"stream"`: `by(x, channel_axis)`, the stream behind each block;
            - `"branch"`: `by(received, added, channel_axis)`, what a branch adds; may return None;
            - `"values"`: `by(x)`, the stream and what is added to it, of which the larger number counts;
            - `"units"`: `by(out, channel_axis, function)`, the output of each of `activations`; returns how many units
              are found, and of how many;
            - `"gradient"`: `by(gradient, batch_axis, scale)`, that in the stream, which is `scale` times too large;
            - `"recurrent gradient"`: `by(gradient)`, that in front of a recurrent layer without gates;
            - `"weights"`: `by(sums)`, a `WeightSums` of the block;
            - `"streams"`: `by(streams)`, those of a stack of several, behind each block;
            - `"transport"`: `by(matrix)`, what carries the streams past a block;
            - `"transports"`: `by(matrices)`, those of the whole stack, and returns a number for each block;
            - `"model"`: `by(blocks, model)`, the report so far;
            - `"request"`: `by(look, blocks, model)`, only where it is asked for; `look` is a `RequestedLook`, and `by`
              adds what it finds to the entries;
            - `"another"`: comes with another quantity, and has no `by`.
        by: What measures it.
        of_whole: Whether it describes the whole model rather than each block.
        label: What the page calls it; empty where it does not show it.
        column: What the table of a printed report calls it; empty where it has no such column.
        headline: What the line above the table calls the ratio of the column's ends, and its definition.
        headline_step: 1 for the first row over the last, -1 for the last over the first.
        band: Its usual range; None where none is.
        percent: Whether it is a share, shown in percent.
        chart: Its picture by depth; None where only the box of a block shows it.
        draw: Of a quantity of the whole: from its value, all of them, and the names of the blocks to its picture.
        history: Whether `XrayCallback.history` has it.
        tensorboard: Whether TensorBoard shows it.
        watched: Whether it is shown there only where steps of training were watched.
        name: Its name in `quantities=`; by default the key.
        cost: What it costs on request.
        check: `check(name, y)`, which raises if the targets are unsuitable; called before measuring.
        across: Of all blocks' values and numbers of entries, what each block gets in the end.
        rows: How two values of the rows of a stack of several become one.
        activations: Names of the functions whose outputs are looked at, for `"units"`.
        sums_only: Whether it has no meaning where a branch is set beside its shortcut.
        dtype: The only type of the model's numbers for which it has a meaning.
        topology: The only topology of a stack for which the band holds.
        samples: Different samples of a batch from which on it has a meaning.
    """

    key: str
    definition: str
    of: Of
    by: Callable[..., Any] | None = None
    of_whole: bool = False
    label: str = ""
    column: str = ""
    headline: tuple[str, str] | None = None
    headline_step: int = 1
    band: Band | None = None
    percent: bool = False
    chart: DepthChart | None = None
    draw: Callable[[Any, Mapping[str, Any], list[str]], Chart] | None = None
    history: bool = False
    tensorboard: bool = False
    watched: bool = False
    name: str = ""
    cost: Passes | None = None
    check: Callable[[str, Any], None] | None = None
    across: Callable[[Sequence[float], Sequence[int]], Sequence[float]] | None = None
    rows: Callable[[Any, Any], Any] = np.maximum
    activations: tuple[str, ...] = ()
    sums_only: bool = False
    dtype: str | None = None
    topology: str | None = None
    samples: int = 1

    def measure(self, *arguments: Any) -> Any:
        """Returns what `by` makes of its arguments."""
        if self.by is None:
            raise TypeError(f"{self.key!r} comes with another quantity.")
        return self.by(*arguments)

    @property
    def asked_as(self) -> str:
        """Its name in `quantities=`."""
        return self.name or self.key

    @property
    def low(self) -> float:
        """Least usual value."""
        return -math.inf if self.band is None else self.band.low

    @property
    def high(self) -> float:
        """Largest usual value."""
        return math.inf if self.band is None else self.band.high

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
    """Returns the mean cosine between samples at which only a tenth of their dissimilarity at the input is left.

    Args:
        model: The quantities of the whole.
    """
    before = model.get("sample_cosine_input")
    return -1.0 if not is_number(before) or not math.isfinite(before) else 1 - 0.1 * (1 - before)


def needs_targets(name: str, y: Any) -> None:
    """Raises a `ValueError` without targets; the `check` of quantities that need the loss."""
    if y is None:
        raise ValueError(f"xray: quantity {name!r} needs targets; pass `y`.")
