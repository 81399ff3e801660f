"""What a notebook shows of an object: a small table, in which no foreign text is taken for HTML."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from html import escape

from keras_residual._errors import printable


def html_table(title: str, rows: Iterable[Sequence[object]], header: Sequence[str] = ()) -> str:
    """Returns a table as HTML.

    Args:
        title: Stands above it.
        rows: The cells, of which the first names the row.
        header: Names of the columns; none by default.
    """
    head = "".join(f'<th style="text-align: left">{_cell(name)}</th>' for name in header)
    body = "".join(
        f'<tr><th style="text-align: left">{_cell(first)}</th>'
        + "".join(f'<td style="text-align: left">{_cell(cell)}</td>' for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    head = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f'<table><caption style="text-align: left">{_cell(title)}</caption>{head}<tbody>{body}</tbody></table>'


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which shows HTML; nothing is imported to find out."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def _cell(value: object) -> str:
    return escape(printable(f"{value:.6g}" if isinstance(value, float) else value))
