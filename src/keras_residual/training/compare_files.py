"""The files of a comparison: rows as CSV and JSON, and their picture, each complete at every moment."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_residual import _atomic
from keras_residual._json import finite
from keras_residual.training.compare_picture import draw

Row = dict[str, Any]


class ComparisonFiles:
    """Collects the rows and writes `results.csv`, `results.json` and `compare.png` anew with each.

    Args:
        path: The folder, which is there.
        facts: What is the same for all nets; goes into `results.json`.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path = path
        self.rows: list[Row] = []
        self._facts = facts

    @property
    def results(self) -> dict[str, Any]:
        """The facts, and the rows so far."""
        return {**self._facts, "run_directory": str(self.path), "rows": self.rows}

    def add(self, row: Row) -> None:
        """Writes one row more. A number that is not finite, as of a net that diverged, becomes None.

        Lists, with a number a block, are for the JSON alone.
        """
        self.rows.append(finite(row))
        table = io.StringIO()
        columns = [key for key, value in row.items() if not isinstance(value, list)]
        writer = csv.DictWriter(table, fieldnames=columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(self.rows)
        _atomic.write_text(self.path / "results.csv", table.getvalue())
        _atomic.write_text(self.path / "results.json", json.dumps(self.results, indent=2, ensure_ascii=False) + "\n")
        _atomic.write_bytes(self.path / "compare.png", draw(self.results))
