"""What an epoch leaves: a row of history, the best model so far, and how long steps take."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_residual.training.assemble import Assembled
from keras_residual.training.optimizers import averaged
from keras_residual.training.run_directory import RunDirectory
from keras_residual.training.scores import SHARES, percent

# The loss as a metric, whose weighted mean leaves out the padding of the last validation batch; Keras's own does not.
EXACT = "exact_loss"

COLUMNS = ("loss", "val_loss", "accuracy", "val_accuracy")


class NotFiniteError(FloatingPointError):
    """The loss became infinite or no number at all."""

    explained = True


class Record(keras.callbacks.Callback):
    """Looks at the loss after each step, and after each epoch puts a row of history and the best model on the disk.

    Best is the highest validation accuracy, then the lowest validation loss; for numbers the lowest validation loss.

    Args:
        run: Where to write.
        assembled: The models; the loss is written in the square of the target's units.
        settings: What decides the size of a step, in words.
        patience: Epochs without a better one after which the training ends; None for any number.
    """

    def __init__(
        self, run: RunDirectory, assembled: Assembled, settings: str = "", *, patience: int | None = None
    ) -> None:
        super().__init__()
        self.run = run
        self.assembled = assembled
        self.rows: list[dict[str, float]] = []
        self.best_epoch = 0
        self.steps = StepTimes()
        self.validation = StepTimes()
        self._settings = settings
        self._patience = patience
        self._best: tuple[float, ...] | None = None
        self._epoch = 0
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the time."""
        self._epoch = epoch + 1
        self._started = time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the time."""
        self.steps.begin()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks whether the loss is a number: the mean over the epoch is none as soon as that of one step is none."""
        self.steps.end()
        self._check("loss", (logs or {}).get("loss", 0.0), f"from step {batch + 1} of epoch {self._epoch} on")

    def on_test_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the time."""
        self.validation.begin()

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the time."""
        self.validation.end()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes history and, if it is the best, the model."""
        logs = {} if logs is None else logs
        # In place, so that the callbacks after this one see the exact numbers too.
        for part in ("", "val_"):
            if part + EXACT in logs:  # not of a model of the caller's own
                logs[f"{part}loss"] = logs.pop(part + EXACT)
        # A metric of the caller's own may have a number for each class, which is no column.
        numbers = {key: float(value) for key, value in logs.items() if np.ndim(value) == 0}
        for key in ("loss", "val_loss"):
            self._check("loss" if key == "loss" else "validation loss", numbers[key], f"after epoch {epoch + 1}")
            logs[key] = numbers[key] = numbers[key] * self.assembled.target_scale**2
        seconds = round(time.perf_counter() - self._started, 3)
        row = {"epoch": epoch + 1, **{key: numbers[key] for key in self._columns(numbers)}, "seconds": seconds}
        self.rows.append(row)
        rank = (-numbers["val_accuracy"], numbers["val_loss"]) if "val_accuracy" in numbers else (numbers["val_loss"],)
        if self._best is None or rank < self._best:
            with averaged(self.assembled.network):
                self.run.save_model(self.assembled.raw)
            self._best, self.best_epoch = rank, epoch + 1
        self.run.save_history(self.rows)
        self.run.log(describe_epoch(row))
        if self._patience is not None and epoch + 1 - self.best_epoch >= self._patience:
            self.run.log(f"No better epoch since epoch {self.best_epoch}.")
            model: Any = self.model
            model.stop_training = True

    def _columns(self, numbers: Mapping[str, float]) -> list[str]:
        """Returns the columns of an epoch, which are those of the first one."""
        columns = _in_order(numbers)
        return [key for key in columns if key in self.rows[0]] if self.rows else columns

    def state(self) -> dict[str, Any]:
        """Returns what the record knows of the epochs so far, for a run that goes on."""
        return {"rows": self.rows, "best_epoch": self.best_epoch, "best": self._best}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` returned."""
        self.rows, self.best_epoch, self._best = state["rows"], state["best_epoch"], state["best"]

    def speed(self, batch_size: int) -> dict[str, float | None]:
        """Returns what was compiled and loaded, in seconds, and how many examples a step takes a second without it.

        A pause of the process changes neither. Both are None after a single step, of which nobody can tell.
        """
        if self.steps.usual is None:
            return {"compile_seconds": None, "examples_per_second": None}
        return {
            "compile_seconds": round(self.steps.extra + self.validation.extra, 3),
            "examples_per_second": round(batch_size / self.steps.usual, 1),
        }

    def _check(self, what: str, value: float, when: str) -> None:
        if not math.isfinite(value):
            raise NotFiniteError(f"the {what} is {value} {when}. {self._settings}".rstrip())


class StepTimes:
    """How long steps take, and how much longer the first took: that is what was compiled and loaded for it."""

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._began = 0.0

    def begin(self) -> None:
        """Notes that a step begins."""
        self._began = time.perf_counter()

    def end(self) -> None:
        """Notes that it has ended."""
        self._seconds.append(time.perf_counter() - self._began)

    @property
    def usual(self) -> float | None:
        """Seconds of a step: the median, which no pause changes, without the first; None for a single one."""
        return statistics.median(self._seconds[1:]) if len(self._seconds) > 1 else None

    @property
    def extra(self) -> float:
        """Seconds that the first took beyond the usual; 0 where the usual is not known."""
        return 0.0 if self.usual is None else max(0.0, self._seconds[0] - self.usual)


def describe_epoch(row: dict[str, float], of: int | None = None) -> str:
    """Returns one line about an epoch, as a terminal or a log shows it."""
    count = f"{row['epoch']:.0f}" + (f"/{of}" if of else "")
    numbers = [f"{key} {percent(row[key]) if key in SHARES else _short(row[key])}" for key in _in_order(row)]
    return "  ".join([f"epoch {count}", *numbers])


def _in_order(row: Mapping[str, float]) -> list[str]:
    """Returns the names of the numbers of an epoch: those that every run has first."""
    others = [key for key in row if key not in (*COLUMNS, "epoch", "seconds")]
    return [key for key in COLUMNS if key in row] + others


def _short(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 100 else f"{value:.1f}"
