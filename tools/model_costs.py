"""Writes what each network of the catalogue costs, `models/data/costs.json` of the package; takes a minute.

.venv/bin/python tools/model_costs.py
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from keras_residual._order import natural_key
from keras_residual.models.blueprint import blueprint
from keras_residual.models.catalog import CATALOG

FILE = Path(__file__).parents[1] / "src" / "keras_residual" / "models" / "data" / "costs.json"


def main() -> None:
    """Writes the file."""
    rows = {name: entry(name) for name in sorted(CATALOG, key=natural_key)}
    # A network a line, so that a change shows as one.
    lines = [f"{json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def entry(name: str) -> dict[str, Any]:
    """Returns what the file says of a network."""
    drawn = blueprint(name)
    return {
        "input_shape": list(drawn.input_shape),
        "num_classes": drawn.num_classes,
        **dataclasses.asdict(drawn.costs),
    }


if __name__ == "__main__":
    main()
