"""What is seen of a training while it runs: a bar in a terminal, a line an epoch elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from keras_residual.training.record import describe_epoch
from keras_residual_cli.output import Words


@contextmanager
def watching(console: Words, *, epochs: int, steps: int, done: int = 0) -> Iterator[keras.callbacks.Callback]:
    """Yields the callback that shows the training; the bar is gone from the terminal however the training ends."""
    if not console.is_terminal:
        yield _Lines(console, epochs)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bar(progress, epochs, steps, done)


class _Lines(keras.callbacks.Callback):
    def __init__(self, console: Words, epochs: int) -> None:
        super().__init__()
        self._console = console
        self._epochs = epochs

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        row = {"epoch": epoch + 1, **(logs or {})}
        self._console.say(describe_epoch(row, of=self._epochs))


class _Bar(keras.callbacks.Callback):
    def __init__(self, progress: Progress, epochs: int, steps: int, done: int) -> None:
        super().__init__()
        self._progress = progress
        self._epochs = epochs
        self._task = progress.add_task("compiling", total=epochs * steps, completed=done)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._progress.advance(self._task)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # One number beside the bar, so that both fit into 80 columns.
        key = next(key for key in ("val_accuracy", "val_loss") if key in (logs or {}))
        row = {"epoch": epoch + 1, key: (logs or {})[key]}
        self._progress.update(self._task, description=describe_epoch(row, of=self._epochs))
