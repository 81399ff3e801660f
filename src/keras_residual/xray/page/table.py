"""An X-ray as a table with its advice below it: as text, and as a cell of a notebook shows it."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from keras_residual._errors import printable
from keras_residual.xray.health import HEALTHY, SIGNS, Findings, Health, healths, verdict
from keras_residual.xray.quantities import QUANTITIES
from keras_residual.xray.quantities.gradients import ratio_of_ends
from keras_residual.xray.rules import Advice

MOST_ROWS = 40
MOST_NAME = 60
"""Characters of a name in a table."""

MOST_ODD = 5
"""Unusual numbers that are written out below the table."""

MOST_TEXT = 2000


def as_text(report: Findings) -> str:
    """Returns a report as text.

    Args:
        report: The report.
    """
    from rich.console import Console
    from rich.table import Table

    shown, advice = columns_of(report), report.advice
    rows = Table()
    rows.add_column("block", no_wrap=True)
    for _, title in shown:
        rows.add_column(title, justify="right")
    for block in some_rows(report.blocks):
        cells = [short(block.get(key)) if block else "…" for key, _ in shown]
        rows.add_row(printable(block["name"], MOST_NAME) if block else "…", *cells)
    console = Console(file=io.StringIO(), width=120, highlight=False, markup=False, emoji=False)
    console.print(title_of(report))
    console.print(rows)
    for entry in advice:
        console.print(str(entry))
    if not advice:
        health = healths(report.blocks, report.model, advice)
        odd = "" if verdict(advice, health)[0] == HEALTHY else f" {odd_in_words(report, health)}"
        console.print(f"Nothing to advise.{odd}")
    return console.file.getvalue()  # pyright: ignore


def as_cell(report: Findings) -> str:
    """Returns a report as one element of HTML, without script or style; numbers outside their usual range are bold.

    Args:
        report: The report.
    """
    advice, shown = report.advice, columns_of(report)
    health = healths(report.blocks, report.model, advice)
    level, words = verdict(advice, health)
    parts = [f"<p>{_text(title_of(report))}</p>", f"<p><b>{SIGNS[level]} {words}</b></p>"]
    if advice:
        parts.append(f"<ol>{''.join(map(_entry, advice))}</ol>")
    elif level != HEALTHY:
        parts.append(f"<p>{_text(odd_in_words(report, health))}</p>")
    own = dict(zip(map(id, report.blocks), health, strict=True))
    rows = []
    for block in some_rows(report.blocks):
        if block is None:
            rows.append(f'<tr><td colspan="{len(shown) + 2}">…</td></tr>')
            continue
        level, odd = own[id(block)].level, {quantity.key for quantity in own[id(block)].odd}
        values = [(key in odd, _text(short(block.get(key)))) for key, _ in shown]
        cells = "".join(f"<td><b>{value}</b></td>" if bold else f"<td>{value}</td>" for bold, value in values)
        name = _text(printable(block["name"], MOST_NAME))
        rows.append(f'<tr><td title="{level}">{SIGNS[level]}</td><td>{name}</td>{cells}</tr>')
    if rows:
        head = "".join(f"<th>{title}</th>" for title in ("", "block", *(title for _, title in shown)))
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>")
    return f"<div>{''.join(parts)}</div>"


def _entry(entry: Advice) -> str:
    where, finding, change, because = map(_text, (entry.block, entry.finding, entry.change, entry.because))
    return f"<li><b>{where}</b>: {finding}. <b>Change:</b> {change}. <i>Why: {because}.</i></li>"


def _text(text: object) -> str:
    return html.escape(printable(text, MOST_TEXT))


def columns_of(report: Findings) -> list[tuple[str, str]]:
    """Returns the quantities of the table that any block has, each with its title there."""
    named = ((quantity.key, quantity.column) for quantity in QUANTITIES if quantity.column)
    return [(key, title) for key, title in named if any(block.get(key) is not None for block in report.blocks)]


def title_of(report: Findings) -> str:
    """Returns the line that stands above the table."""
    count = len(report.blocks)
    parts = [f"{count} {'connection' if report.model.get('connections') else 'layer'}{'s' * (count != 1)}"]
    for quantity in QUANTITIES:
        if quantity.headline is not None:
            # Of the very numbers that the columns show.
            column = [block[quantity.key] for block in report.blocks if block.get(quantity.key) is not None]
            ratio = ratio_of_ends(column[:: quantity.headline_step])
            if math.isfinite(ratio):
                parts.append(f"{quantity.headline[0]}: {short(ratio)}")
    return "; ".join(parts)


def odd_in_words(report: Findings, health: Sequence[Health]) -> str:
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
