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
from keras_residual.xray.advice import Advice, advise

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

MOST_ROWS = 40


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

        shown = [(key, title) for key, title in COLUMNS if any(block.get(key) is not None for block in self.blocks)]
        table = Table()
        table.add_column("block", no_wrap=True)
        for _, title in shown:
            table.add_column(title, justify="right")
        for block in _some(self.blocks):
            cells = [_short(block.get(key)) if block else "…" for key, _ in shown]
            table.add_row(str(block["name"]) if block else "…", *cells)
        console = Console(file=io.StringIO(), width=120, highlight=False, markup=False)
        console.print(self._title())
        console.print(table)
        for entry in self.advice:
            console.print(str(entry))
        if not self.advice:
            console.print("Nothing to advise.")
        return console.file.getvalue()  # pyright: ignore

    def _title(self) -> str:
        model = self.model
        what = "connections" if model.get("connections") else "layers"
        gradient, signal = (_short(model.get(key)) for key in ("gradient_ratio", "signal_ratio"))
        return f"{len(self.blocks)} {what}; gradient, first over last: {gradient}; signal, last over first: {signal}"


def _some(blocks: Sequence[Mapping[str, Any]]) -> Iterable[Mapping[str, Any] | None]:
    """Yields the blocks, of many only those at the ends with None for the gap between."""
    if len(blocks) <= MOST_ROWS:
        return list(blocks)
    half = MOST_ROWS // 2
    return [*blocks[:half], None, *blocks[-half:]]


def _short(value: Any) -> str:
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
