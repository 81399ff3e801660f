"""What an X-ray found: numbers by block, numbers of the whole, and advice."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_residual import _atomic
from keras_residual._errors import printable
from keras_residual.xray.advice import Advice
from keras_residual.xray.health import HEALTHY, Health, healths, verdict
from keras_residual.xray.quantities.stream_gradient import ratio_of_ends
from keras_residual.xray.rules import advise

COLUMNS = (
    ("gradient_norm", "gradient"),
    ("weight_gradient_ratio", "dW/W"),
    ("variance", "variance"),
    ("branch_ratio", "branch/skip"),
    ("branch_cosine", "cosine"),
    ("share", "share"),
    ("stream_collapse", "streams"),
    ("transport_gain", "transport"),
    ("dead_units", "dead"),
    ("saturated_units", "saturated"),
)
"""Quantities that the table shows, and how it calls them."""

HEADLINE = (
    ("gradient_norm", "gradient, first row over last", 1),
    ("variance", "variance, last row over first", -1),
)
"""Columns of which the line above the table has the ratio of the ends, what it calls that, and from which end."""

MOST_ROWS = 40
MOST_NAME = 60
"""Characters of a name in a table."""

MOST_ODD = 5
"""Unusual numbers that are written out below the table."""


@dataclass(frozen=True, slots=True)
class XrayReport:
    """The result of `kr.xray`.

    Args:
        blocks: One entry a residual connection, or a layer where there is none, in the order in which they are
            computed: its `name`, its `kind`, and a key a quantity; None where a quantity has no meaning.
        model: The quantities of the whole.

    Example:
        >>> from keras_residual.xray import xray
        >>> model = keras.Sequential([keras.Input((8,)), kr.Residual(keras.layers.Dense(8), norm="layer_norm")])
        >>> report = xray(model, np.random.default_rng(0).normal(size=(32, 8)))
        >>> [block["kind"] for block in report.blocks], report.advice
        (['residual'], [])
    """

    blocks: Sequence[Mapping[str, Any]]
    model: Mapping[str, Any]

    @property
    def advice(self) -> list[Advice]:
        """What is wrong, where, and what to change; empty where nothing is."""
        return advise(self.blocks, self.model)

    def to_dict(self) -> dict[str, Any]:
        """Returns `blocks`, `model` and `advice` in plain lists and dictionaries."""
        return {
            "blocks": [dict(block) for block in self.blocks],
            "model": dict(self.model),
            "advice": [entry.to_dict() for entry in self.advice],
        }

    def to_json(self, path: str | Path) -> None:
        """Writes what `to_dict` returns; numbers that are not finite, which JSON lacks, become null.

        Args:
            path: The file.
        """
        text = json.dumps(finite(self.to_dict()), indent=2, ensure_ascii=False, allow_nan=False)
        _atomic.write_text(Path(path), text + "\n")

    def to_html(self, path: str | Path, earlier: XrayReport | None = None) -> None:
        """Writes a page to be opened in a browser: one file, no network, readable without prior knowledge.

        The net is drawn block by block and coloured by health, each quantity by depth, with words under each picture.
        A click on a block marks it in all of them and shows its numbers and its advice.

        Args:
            path: The file.
            earlier: An earlier report of the same model, of before its training for example, drawn beside it.

        Raises:
            ImportError: Without the extra `plot`.

        Example:
            >>> report = XrayReport([], {"name": "empty"})
            >>> report.to_html("xray.html")                                             # doctest: +SKIP
        """
        from keras_residual.xray.page.render import page

        _atomic.write_text(Path(path), page(self, earlier))

    def __str__(self) -> str:
        """Returns a table of the blocks, and the advice below it."""
        from rich.console import Console
        from rich.table import Table

        shown, advice = columns_of(self), self.advice
        table = Table()
        table.add_column("block", no_wrap=True)
        for _, title in shown:
            table.add_column(title, justify="right")
        for block in some_rows(self.blocks):
            cells = [short(block.get(key)) if block else "…" for key, _ in shown]
            table.add_row(printable(block["name"], MOST_NAME) if block else "…", *cells)
        console = Console(file=io.StringIO(), width=120, highlight=False, markup=False, emoji=False)
        console.print(title_of(self))
        console.print(table)
        for entry in advice:
            console.print(str(entry))
        if not advice:
            health = healths(self.blocks, self.model, advice)
            odd = "" if verdict(advice, health)[0] == HEALTHY else f" {odd_in_words(self, health)}"
            console.print(f"Nothing to advise.{odd}")
        return console.file.getvalue()  # pyright: ignore

    def _repr_html_(self) -> str:
        """Returns a table and the advice for a notebook."""
        from keras_residual.xray.page.table import fragment

        return fragment(self)


def columns_of(report: XrayReport) -> list[tuple[str, str]]:
    """Returns the quantities of the table that any block has, each with its title there."""
    return [(key, title) for key, title in COLUMNS if any(block.get(key) is not None for block in report.blocks)]


def title_of(report: XrayReport) -> str:
    """Returns the line that stands above the table."""
    count = len(report.blocks)
    parts = [f"{count} {'connection' if report.model.get('connections') else 'layer'}{'s' * (count != 1)}"]
    for key, title, step in HEADLINE:
        # Of the very numbers that the columns show.
        column = [block[key] for block in report.blocks if block.get(key) is not None][::step]
        ratio = ratio_of_ends(column)
        if math.isfinite(ratio):
            parts.append(f"{title}: {short(ratio)}")
    return "; ".join(parts)


def odd_in_words(report: XrayReport, health: Sequence[Health]) -> str:
    """Returns the numbers outside their usual range as a sentence.

    Args:
        report: The report.
        health: That of each block.
    """
    found = [
        f"{printable(block['name'], MOST_NAME)}: {quantity.label} {quantity.shown(block[quantity.key])} "
        f"(usual: {quantity.usual})"
        for block, own in zip(report.blocks, health, strict=True)
        for quantity in own.odd
    ]
    more = f"; and {len(found) - MOST_ODD} more" if len(found) > MOST_ODD else ""
    return f"Outside the usual range: {'; '.join(found[:MOST_ODD])}{more}."


def some_rows(blocks: Sequence[Mapping[str, Any]]) -> Iterable[Mapping[str, Any] | None]:
    """Yields the blocks, of many only those at the ends with None for the gap between."""
    if len(blocks) <= MOST_ROWS:
        return list(blocks)
    half = MOST_ROWS // 2
    return [*blocks[:half], None, *blocks[-half:]]


def short(value: Any) -> str:
    """Returns a number with three digits, and a dash for nothing."""
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def finite(value: Any) -> Any:
    """Returns a structure with None in the place of numbers that are not finite, which JSON lacks."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
