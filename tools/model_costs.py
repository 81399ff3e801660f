"""Writes what networks of the catalogue cost into `models/data/costs.json` of the package.

.venv/bin/python tools/model_costs.py          # all of them; takes a minute
.venv/bin/python tools/model_costs.py NAME …   # these alone
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_residual._order import natural_key
from keras_residual.models.catalog import CATALOG
from keras_residual.models.costs import blueprint

FILE = Path(__file__).parents[1] / "src" / "keras_residual" / "models" / "data" / "costs.json"


def main(names: Sequence[str] = ()) -> None:
    """Writes the file, in which the networks that are not named keep their lines."""
    known = json.loads(FILE.read_text(encoding="utf-8")) if names else {}
    counted = {name: entry(name) for name in names or CATALOG}
    rows = {name: {**known, **counted}[name] for name in sorted({*known, *counted}, key=natural_key)}
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
    main(sys.argv[1:])
