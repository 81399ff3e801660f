"""A quantity as the page knows it: words, and how its picture is drawn."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantity:
    """A number that each block has. One line of `QUANTITIES` puts it on the page.

    Args:
        key: Its name in the entries of the blocks.
        label: What a table and the box of a block call it.
        usual: What is usual, in words; empty where nothing is.
        percent: Whether it is a share, shown in percent.
        title: The question above its picture; empty where it has none and only the box of a block shows it.
        words: What is to be seen, and how a healthy net looks.
        axis: Title of the upward axis.
        chapter: Key of the chapter in `CHAPTERS` that its picture is in.
        log: Whether the upward axis goes in powers of ten.
        bars: Whether it is drawn as bars from zero, and not as a line.
        band: The usual range, shaded.
        of_stage: Whether the band is a multiple of the value at the end of the block's stage.
        neutral: A value at which a line is drawn across.
        domain: Ends of the upward axis; by default those of the values.
        beside: A second quantity, drawn in the same picture: its key and its label.
        only_if_any: Whether the picture is left out where all values are 0.
        dtype: The only type of the model's numbers for which it has a meaning.
    """

    key: str
    label: str
    usual: str = ""
    percent: bool = False
    title: str = ""
    words: str = ""
    axis: str = ""
    chapter: str = "blocks"
    log: bool = False
    bars: bool = False
    band: tuple[float, float] | None = None
    of_stage: bool = False
    neutral: float | None = None
    domain: tuple[float, float] | None = None
    beside: tuple[str, str] | None = None
    only_if_any: bool = False
    dtype: str | None = None


CHAPTERS = {
    "learning": "Does every block learn?",
    "signal": "What becomes of the input on its way?",
    "blocks": "What does each block do?",
    "numbers": "Are units or numbers lost?",
    "whole": "The net as a whole",
}
"""The parts of the page, in order."""
