"""The runs in a folder, read back from what they have written: what they were, how far they came, what they found."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_residual._errors import printable, shown
from keras_residual.training.config import TrainConfig
from keras_residual.training.config_file import read_config
from keras_residual.training.run_directory import RunDirectory

_NOT_COMPARED = ("out", "data.classes", "data.features", "xray", "save_every", "max_minutes")
_MOST_BYTES = 10_000_000


@dataclass(frozen=True)
class RunSummary:
    """What a run directory says.

    Args:
        path: The directory.
        state: `"finished"`, `"running"`, `"unfinished"`, or `"broken"`, where a file of it cannot be read.
        config: Its settings; None where they cannot be read.
        epochs: Epochs that are in its history.
        numbers: Those of the test of a finished run, else those of its last epoch.
        reason: What is broken; empty if nothing is.
    """

    path: Path
    state: str
    config: TrainConfig | None = None
    epochs: int = 0
    numbers: dict[str, Any] = field(default_factory=dict)
    reason: str = ""


def list_runs(folder: str | Path, *, sort: str | None = None) -> list[RunSummary]:
    """Returns the runs in a folder and in the folders within it, by name, or by a number or setting.

    Args:
        folder: Where to look; or a run directory itself.
        sort: A key of the numbers, such as `"test_accuracy"`, best first, or of the settings, such as `"epochs"`. Runs
            that have none come last.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If no run has that key.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {shown(str(folder))} with runs.")
    found = [_read(path) for path in sorted([folder, *folder.rglob("*/")]) if _is_run(path)]
    if sort is None:
        return found
    values = {run.path: _value(run, sort) for run in found}
    if found and all(value is None for value in values.values()):
        known = sorted({key for run in found for key in (*run.numbers, *(run.config.flat() if run.config else ()))})
        raise ValueError(f"No run has a number or setting {shown(sort)}. Known: {', '.join(known)}.")
    # Of losses and errors the lowest is the best, of shares the highest.
    falling = any(word in sort for word in ("accuracy", "r2", "auc", "precision", "recall", "per_second"))

    def rank(run: RunSummary) -> tuple[Any, ...]:
        value = values[run.path]
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and not math.isnan(value):
            return (0, -value if falling else value, "")
        return (2 if value is None or number else 1, 0, str(value))

    return sorted(found, key=rank)


def differences(runs: Sequence[RunSummary]) -> dict[Path, dict[str, Any]]:
    """Returns of each run the settings in which the runs are not all alike."""
    flat = {run.path: run.config.flat() for run in runs if run.config is not None}
    keys = [key for key in TrainConfig.dotted_keys() if key not in _NOT_COMPARED]
    varying = [key for key in keys if len({repr(values[key]) for values in flat.values()}) > 1]
    return {path: {key: values[key] for key in varying} for path, values in flat.items()}


def _is_run(path: Path) -> bool:
    return (path / "log.txt").is_file() and (path / "config.toml").is_file()


def _read(path: Path) -> RunSummary:
    run = RunDirectory(path)
    try:
        config = read_config(run.config)
    except (ValueError, OSError) as error:
        return RunSummary(path, "broken", reason=str(error))
    try:
        rows = list(csv.DictReader(_text(run.history).splitlines())) if run.history.exists() else []
        last = {key: float(value) for key, value in (rows[-1] if rows else {}).items() if key != "epoch"}
        if run.metrics.exists():
            numbers = json.loads(_text(run.metrics))
            if not isinstance(numbers, dict):
                raise ValueError("it is no JSON object")
            state = "finished" if numbers.get("epochs") == len(rows) else "unfinished"
            return RunSummary(path, "running" if _is_busy(run) else state, config, len(rows), numbers)
    except (ValueError, TypeError, OSError) as error:
        name = "metrics.json" if run.metrics.exists() else "history.csv"
        return RunSummary(path, "broken", config, reason=f"{printable(path / name)}: {error}")
    return RunSummary(path, "running" if _is_busy(run) else "unfinished", config, len(rows), last)


def _is_busy(run: RunDirectory) -> bool:
    try:
        with run.alone():
            return False
    except FileExistsError:
        return True
    except OSError:  # nobody can write there
        return False


def _text(path: Path) -> str:
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES // 10**6} MB")
    return path.read_text(encoding="utf-8")


def _value(run: RunSummary, key: str) -> Any:
    if key in run.numbers:
        return run.numbers[key]
    return run.config.flat().get(key) if run.config else None
