"""An X-ray as a cell of a notebook shows it: a table and the advice, without script or style sheet."""

from __future__ import annotations

import html

from keras_residual._errors import printable
from keras_residual.xray.advice import Advice
from keras_residual.xray.health import HEALTHY, SIGNS, healths, verdict
from keras_residual.xray.report import MOST_NAME, XrayReport, columns_of, odd_in_words, short, some_rows, title_of

MOST_TEXT = 2000


def fragment(report: XrayReport) -> str:
    """Returns one element of HTML; numbers outside their usual range are bold.

    Args:
        report: What is shown.
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
