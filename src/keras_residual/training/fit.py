"""The training itself, gone on with from any step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_residual.data import Batches
from keras_residual.training.finetune import Phase
from keras_residual.training.session import Session


class SplitBatches:
    """Batches, each cut into parts of one size, which come one after the other.

    Args:
        batches: The whole ones.
        parts: Number of parts, a divisor of the batch size.
    """

    def __init__(self, batches: Batches, parts: int) -> None:
        self._batches, self._parts = batches, parts
        self._last: tuple[int, tuple[np.ndarray, np.ndarray]] | None = None

    @property
    def steps(self) -> int:
        """Parts in an epoch."""
        return self._parts * self._batches.steps

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns `(x, y)` of a part, which are counted from 0 over all epochs."""
        whole, part = divmod(step, self._parts)
        if self._last is None or self._last[0] != whole:
            self._last = whole, self._batches.batch(whole)
        x, y = self._last[1]
        size = len(x) // self._parts
        return x[part * size : (part + 1) * size], y[part * size : (part + 1) * size]

    def since(self, step: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the parts of a step and of all that follow it, without end."""
        return (self.batch(step) for step in itertools.count(step))


def fit(
    learner: keras.Model,
    batches: Batches | SplitBatches,
    held_back: keras.utils.PyDataset,
    session: Session,
    phases: Sequence[Phase],
    resized: Sequence[int] = (),
) -> None:
    """Trains a learner from the session's step to its last one, phase by phase, each of which compiles it again.

    Args:
        learner: The model.
        batches: What it learns from.
        held_back: By which the best epoch is chosen.
        session: Where the training is.
        phases: In which order what is trained.
        resized: Epochs at which the batches get another shape.
    """
    quiet: Any = 0  # annotated as text, documented as a number
    begun = None
    while not session.ended:
        epoch, done = divmod(session.step, batches.steps)
        phase = next(phase for phase in phases if epoch < phase.until)
        if phase is not begun:
            phase.begin()
            session.build(held_back)
            begun = phase
        learner.fit(
            batches.since(session.step),
            validation_data=held_back,
            initial_epoch=epoch,
            # Keras counts as many steps in each epoch of a call, so what is left of one is a call of its own.
            # TensorFlow takes the shape of a call's first batches for that of all.
            epochs=epoch + 1 if done else min([later for later in resized if later > epoch] + [phase.until]),
            steps_per_epoch=batches.steps - done,
            shuffle=False,  # they are
            verbose=quiet,
            callbacks=session,
        )
