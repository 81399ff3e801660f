"""One picture of the page, with the words under it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A picture.

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
