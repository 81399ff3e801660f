"""What an X-ray found: numbers by block, numbers of the whole, and advice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from keras_residual import _atomic
from keras_residual._json import finite
from keras_residual.xray.page.render import page
from keras_residual.xray.page.table import as_cell, as_text
from keras_residual.xray.rules import Advice, advise


@dataclass(frozen=True)
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
        return self._advice

    @cached_property
    def _advice(self) -> list[Advice]:
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
        _atomic.write_text(Path(path), page(self, earlier))

    def __str__(self) -> str:
        """Returns a table of the blocks, and the advice below it."""
        return as_text(self)

    def _repr_html_(self) -> str:
        """Returns a table and the advice for a notebook."""
        return as_cell(self)
