"""The folder of one run: its place, its files, its log."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_residual import _atomic
from keras_residual._errors import printable, shown
from keras_residual._places import expanded

if TYPE_CHECKING:
    import keras

try:
    import fcntl
except ModuleNotFoundError:  # Windows has no such locks
    fcntl = None


_CHECKPOINT = re.compile(r"step-(\d+)\.npz")

RUNS = Path("runs")
"""Where runs go that nobody has named a place for."""


class RunDirectory:
    """Paths and writes of a run directory; each file is at every moment complete or not there.

    Args:
        path: The folder, which is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.trained_on = path / "trained_on.npz"
        self.model = path / "model.keras"
        self.history = path / "history.csv"
        self.metrics = path / "metrics.json"
        self.report = path / "report.html"
        self.log_file = path / "log.txt"
        self.last = path / "last"
        self.by_call = False
        """Whether only a call of `train` can go on with the run, since its model or data are the caller's own."""

    @classmethod
    def create(cls, out: str | None, *, name: str) -> RunDirectory:
        """Makes the folder `out`, or a fresh `runs/NAME-N`.

        Raises:
            FileExistsError: If `out` is a file, or a folder that is not empty.
            OSError: If it cannot be made.
        """
        if out is not None:
            check_free(Path(out))
        try:
            run = cls(_fresh(RUNS, name) if out is None else Path(out))
            run.path.mkdir(parents=True, exist_ok=True)
            # Of two runs that begin at the same moment in an empty folder, one makes this file.
            run.log_file.open("x").close()
        except FileExistsError as error:
            raise _in_use(Path(out or RUNS)) from error
        except OSError as error:
            reason = f"{error.strerror}. Choose another place for the run: --out DIR. It cannot be made here"
            raise OSError(error.errno, reason, error.filename) from error
        return run

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within the block another process that works on this run is refused; the end of a process ends it too.

        Raises:
            FileExistsError: If another one works on it.
            OSError: If nothing can be written here.
        """
        try:
            file = self.log_file.open("a")
        except OSError as error:
            reason = f"{error.strerror}. A run goes on in its own directory. It cannot be written to"
            raise OSError(error.errno, reason, str(self.path)) from error
        with file:
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise FileExistsError(
                        f"Another process works on the run directory {shown(str(self.path))}. Wait until it has ended."
                    ) from None
                except OSError:  # a file system without locks
                    pass
            yield

    def save_model(self, model: keras.Model) -> None:
        """Replaces `model.keras`."""
        with _atomic.replacing(self.model) as beside:
            model.save(beside)

    def save_history(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Replaces `history.csv`: a row an epoch."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        _atomic.write_text(self.history, text.getvalue())

    def save_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Replaces `metrics.json`."""
        _atomic.write_text(self.metrics, json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")

    def was_reported(self, step: int) -> bool:
        """Whether `metrics.json` tells of the run after that step."""
        try:
            return json.loads(self.metrics.read_text(encoding="utf-8"))["steps"] == step
        except (OSError, ValueError, TypeError, KeyError):
            return False

    def log(self, text: str) -> None:
        """Appends to `log.txt`, with the time."""
        with self.log_file.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def try_to_log(self, text: str) -> None:
        """Appends to `log.txt` where that can be written: not on a full disk."""
        with suppress(OSError):
            self.log(text.rstrip())

    def how_it_goes_on(self) -> str:
        """Says how to go on with a run that has ended before its time; nothing where it has not begun."""
        if not (self.config.exists() and self.trained_on.exists()):
            return ""
        saved = max((steps_of(path) for path in self.last.glob("step-*.npz")), default=0)
        return f"{f'Saved after step {saved}. ' if saved else ''}Go on with: {self.how_to_go_on()}"

    def how_to_go_on(self, *options: str) -> str:
        """Returns the command, or the call, that goes on with the run."""
        if self.by_call:
            return f"kr.train(resume={printable(repr(str(self.path)))}, ...), with the same model and data"
        return " ".join(["keras-residual train --resume", printable(shlex.quote(str(self.path))), *options])

    def kept(self) -> str:
        """Says which of its files are there, for a message after a run that stopped."""
        known = (
            self.model, self.history, self.metrics, self.report, self.config, self.trained_on, self.last, self.log_file
        )  # fmt: skip
        names = [path.name for path in known if path.exists()]
        kept = f"Kept in {printable(self.path)}: {', '.join(names) or 'nothing'}."
        return kept if self.model.name in names else f"No epoch was finished. {kept}"


def steps_of(path: Path) -> int:
    """Returns after how many steps a checkpoint was written, 0 for another file."""
    found = _CHECKPOINT.fullmatch(path.name)
    return int(found[1]) if found else 0


def check_free(path: Path) -> None:
    """Raises FileExistsError if something of the user's is at `path`, or an OSError if no folder can be made there."""
    try:
        _atomic.check_can_be_made(path)
    except OSError as error:
        raise OSError(
            f"The run directory {shown(str(path))} cannot be made: {error.strerror}. Choose another: --out DIR."
        ) from error
    if (path.exists() or path.is_symlink()) and not path.is_dir():
        what = "is a file" if path.exists() else "is a link that leads nowhere"
        raise FileExistsError(f"The run directory {shown(str(path))} {what}. Choose another: --out DIR.")
    if path.is_dir() and any(path.iterdir()):
        raise _in_use(path)


def check_apart(out: str | None, source: str) -> None:
    """Raises a ValueError where a run would be written into the folder that it learns from, as a class of it."""
    folder, path = expanded(source), RUNS if out is None else Path(out)
    if folder.is_dir() and path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"The run directory {shown(str(path))} would lie within the data {shown(source)}, of which the next run "
            "would take it for a part. Choose another: --out DIR."
        )


def _in_use(path: Path) -> FileExistsError:
    return FileExistsError(
        f"The run directory {shown(str(path))} exists and is not empty. Choose another with --out DIR, "
        "or leave --out away for a fresh one under runs/."
    )


def _fresh(parent: Path, name: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = parent / f"{name}-{number}"
        try:
            path.mkdir()
        except FileExistsError:  # also when another run takes the number at the same moment
            number += 1
        else:
            return path
