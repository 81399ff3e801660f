"""What a training's X-rays are written to: a file of JSON lines, and the event files of TensorBoard."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from keras_residual._json import finite
from keras_residual._optional import require
from keras_residual.xray.health import Findings
from keras_residual.xray.quantities import QUANTITIES

EXTRA = "tensorboard"

MOST_BLOCKS = 32
"""Blocks that have charts of their own; of more, as many at equal distances, the first and the last among them."""

BINS = 30

_COUNT = itertools.count()


class EventFiles:
    """Writes the reports to an event file in a folder, all of one before the next.

    Args:
        path: The folder, which becomes a run of TensorBoard. Files that are there stay, and are shown with the new one.

    Raises:
        ImportError: If tensorboardX is not installed.
    """

    def __init__(self, path: Path) -> None:
        self._writers = require("tensorboardX.event_file_writer", extra=EXTRA)
        self._events = require("tensorboardX.proto.event_pb2", extra=EXTRA)
        self._summaries = require("tensorboardX.proto.summary_pb2", extra=EXTRA)
        self._path = path
        self._writer: Any = None

    def add(self, report: Findings, entries: Sequence[tuple[np.ndarray, np.ndarray]], step: int) -> None:
        """Writes one report.

        Args:
            report: What an X-ray found.
            entries: For each block some entries of its weights, and of their gradients.
            step: Number of steps of training by then.

        Raises:
            OSError: If it cannot be written. The next one goes to a new file, since nothing is read behind what is cut
                off.
        """
        try:
            self._add(report, entries, step)
        except BaseException:
            self.close()
            raise

    def _add(self, report: Findings, entries: Sequence[tuple[np.ndarray, np.ndarray]], step: int) -> None:
        charts = [q for q in QUANTITIES if q.tensorboard and (not q.watched or report.model.get("update_steps"))]
        values = [self._scalar(f"model/{q.key}", report.model.get(q.key)) for q in charts if q.of_whole]
        for key in (quantity.key for quantity in charts if not quantity.of_whole):
            column = [block.get(key) for block in report.blocks]
            values += [self._scalar(f"{key}/{tag}", column[index]) for index, tag in _tags(report)]
            if any(value is not None for value in column):
                values.append(self._over_depth(f"over_depth/{key}", column))
        for index, tag in _tags(report):
            for name, numbers in zip(("weights", "gradients"), entries[index], strict=True):
                values.append(self._histogram(f"{name}/{tag}", numbers))
        summary = self._summaries.Summary(value=[value for value in values if value is not None])
        if self._writer is not None and not self._path.is_dir():
            raise FileNotFoundError(f"The folder {self._path} is gone, and the file in it.")
        if self._writer is None:
            self._path.mkdir(parents=True, exist_ok=True)
            # The name has the second in which it was made; another process or fit may begin in the same one.
            self._writer = self._writers.EventsWriter(str(self._path / "events"), f".{os.getpid()}.{next(_COUNT)}")
        self._writer.write_event(self._events.Event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()

    def close(self) -> None:
        """Closes the file; what is added later goes to another one."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(OSError):  # what it holds back cannot be written either
                writer.close()

    def _scalar(self, tag: str, value: float | None) -> Any:
        return None if value is None else self._summaries.Summary.Value(tag=tag, simple_value=value)

    def _over_depth(self, tag: str, column: Sequence[float | None]) -> Any:
        """Returns a histogram whose horizontal axis is the depth, and whose heights are the numbers."""
        heights = [value if value is not None and math.isfinite(value) and value > 0 else 0.0 for value in column]
        limits = [float(index + 1) for index in range(len(heights))]
        return self._proto(tag, 0.0, limits, heights)

    def _histogram(self, tag: str, numbers: np.ndarray) -> Any:
        numbers = numbers[np.isfinite(numbers)].astype("float64")
        if not numbers.size:
            return None
        counts, edges = np.histogram(numbers, BINS)
        return self._proto(tag, float(edges[0]), edges[1:].tolist(), counts.astype("float64").tolist(), numbers)

    def _proto(self, tag: str, least: float, limits: list[float], counts: list[float], numbers: Any = None) -> Any:
        numbers = np.asarray(counts) if numbers is None else numbers
        histogram = self._summaries.HistogramProto(
            min=least,
            max=limits[-1],
            num=float(sum(counts)),
            sum=float(numbers.sum()),
            sum_squares=float((numbers**2).sum()),
            bucket_limit=limits,
            bucket=counts,
        )
        return self._summaries.Summary.Value(tag=tag, histo=histogram)


def _tags(report: Findings) -> list[tuple[int, str]]:
    """Returns the blocks that have charts, each with a name that sorts by depth."""
    count = len(report.blocks)
    shown = np.unique(np.linspace(0, count - 1, min(count, MOST_BLOCKS)).round().astype(int)) if count else []
    digits = len(str(count - 1))
    names = [re.sub(r"[^-\w.]", "_", str(block["name"])) for block in report.blocks]
    return [(int(index), f"{int(index):0{digits}d}_{names[index]}") for index in shown]


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
