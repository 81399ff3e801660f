"""How a quantity is drawn: what a picture by depth needs to be told, and a picture as the page takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

HEIGHT = 190
"""Height of a picture, in pixels."""

TIGHT = {"zero": False, "nice": False}
"""A scale from the first value to the last."""

WHOLE_STEPS = {"scale": TIGHT, "axis": {"format": "d", "tickMinStep": 1, "grid": False}}
"""An axis of whole numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthChart:
    """What a quantity's picture by depth shows, and in which words.

    Args:
        title: The question above the picture.
        words: What is to be seen.
        axis: Title of the upward axis.
        chapter: Key of the chapter of the page that it is in.
        log: Whether the upward axis goes in powers of ten.
        bars: Whether it is drawn as bars from zero, and not as a line.
        neutral: A value at which a line is drawn across.
        domain: Ends of the upward axis; by default those of the values.
        beside: A second quantity, drawn in the same picture: its key and its label.
        only_if_any: Whether the picture is left out where all values are 0.
    """

    title: str
    words: str
    axis: str
    chapter: str = "blocks"
    log: bool = False
    bars: bool = False
    neutral: float | None = None
    domain: tuple[float, float] | None = None
    beside: tuple[str, str] | None = None
    only_if_any: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A picture of a page.

    Args:
        key: Key of the quantity that it shows.
        title: The question that it answers.
        words: How to read it, and how a healthy net looks.
        here: What it says of this net.
        chapter: Key of the chapter that it is in.
        spec: The Vega-Lite specification.
        legend: What each kind of line means: its class in the style sheet and its words; empty for one kind.
        by_depth: Whether its data are those of the blocks, and a click in it picks a block.
    """

    key: str
    title: str
    words: str
    here: str
    chapter: str
    spec: dict[str, Any]
    legend: tuple[tuple[str, str], ...] = ()
    by_depth: bool = False


def alone(spec: dict[str, Any], values: list[Any]) -> dict[str, Any]:
    """Returns the specification of a picture with data of its own."""
    return {"width": "container", "height": HEIGHT, "data": {"values": values}, **spec}
