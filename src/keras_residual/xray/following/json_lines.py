"""A file with one JSON object a line, to which lines are added as they come."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_residual.xray.report import finite

_CHUNK = 1 << 16


class JsonLines:
    """Adds lines to a file, each complete and on its way to the disk before the next; what is there stays.

    Args:
        path: The file, which is made with its folder when the first line is added. A last line that was cut off while
            it was written, by a kill or a full disk, is taken away then.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ends_well = False

    def add(self, entry: Mapping[str, Any]) -> None:
        """Adds a line; numbers that are not finite, which JSON lacks, become null.

        Raises:
            OSError: If it cannot be written. What was written of it is taken away before the next one.
        """
        line = json.dumps(finite(dict(entry)), ensure_ascii=False, allow_nan=False) + "\n"
        known, self._ends_well = self._ends_well, False
        if not known:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _end_well(self.path)
        with self.path.open("ab") as file:
            file.write(line.encode())
        self._ends_well = True


def _end_well(path: Path) -> None:
    """Takes away what follows the last complete line of a file, unless it is a line that lacks its end alone."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, 2)
        last = b""
        while b"\n" not in last and len(last) < end:
            file.seek(max(0, end - len(last) - _CHUNK))
            last = file.read(end - file.tell())
        rest = last[last.rfind(b"\n") + 1 :]
        if not rest:
            return
        try:
            json.loads(rest)
        except ValueError:
            file.truncate(end - len(rest))
        else:
            file.seek(end)
            file.write(b"\n")
