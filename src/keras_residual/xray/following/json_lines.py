"""A file with one JSON object a line, to which lines are added as they come."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_residual.xray.report import finite


class JsonLines:
    """Adds lines to a file, each complete and on its way to the disk before the next; what is there stays.

    Args:
        path: The file. A last line that was cut off while it was written, by a kill or a full disk, is taken away.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        _end_well(path)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Adds a line; numbers that are not finite, which JSON lacks, become null."""
        line = json.dumps(finite(dict(entry)), ensure_ascii=False, allow_nan=False) + "\n"
        with self.path.open("ab") as file:
            file.write(line.encode())


def _end_well(path: Path) -> None:
    if not path.exists():
        return
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end == len(content):
        return
    try:
        json.loads(content[end:])
    except ValueError:
        with path.open("r+b") as file:
            file.truncate(end)
    else:
        with path.open("ab") as file:
            file.write(b"\n")
