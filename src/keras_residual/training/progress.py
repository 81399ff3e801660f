"""How far a training is, in a notebook: one line with a bar, written anew as it goes on."""

from __future__ import annotations

import importlib
import time
from html import escape
from typing import Any

import keras

from keras_residual.training.record import describe_epoch

SECONDS = 0.5
"""How long a line stands at least: each one goes through the network."""


class NotebookProgress(keras.callbacks.Callback):
    """Shows a bar, and the numbers of the last epoch.

    Args:
        epochs: Passes over the training examples.
        steps: Steps in each.
        done: Steps that are done already.
    """

    def __init__(self, epochs: int, steps: int, done: int = 0) -> None:
        super().__init__()
        display: Any = importlib.import_module("IPython.display")  # there, since this is a notebook
        self._html, self._epochs, self._total, self._done = display.HTML, epochs, epochs * steps, done
        self._words, self._shown = "the first step" if done == 0 else "going on", time.monotonic()
        self._line = display.display(self._now(), display_id=True)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Moves the bar."""
        self._done += 1
        if time.monotonic() - self._shown > SECONDS:
            self._show()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Shows the numbers of the epoch."""
        self._words = describe_epoch({"epoch": epoch + 1, **(logs or {})}, of=self._epochs)
        self._show()

    def _show(self) -> None:
        self._shown = time.monotonic()
        self._line.update(self._now())

    def _now(self) -> Any:
        return self._html(f'<progress value="{self._done}" max="{self._total}"></progress> {escape(self._words)}')
