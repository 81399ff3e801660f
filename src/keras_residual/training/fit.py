"""The training itself, gone on with from any step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_residual.data import Batches, PaddedBatches
from keras_residual.training.finetune import Phase
from keras_residual.training.session import Session


def fit(
    learner: keras.Model, batches: Batches, held_back: PaddedBatches, session: Session, phases: Sequence[Phase]
) -> None:
    """Trains a learner from the session's step to its last one, phase by phase, each of which compiles it anew."""
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
            epochs=epoch + 1 if done else phase.until,
            steps_per_epoch=batches.steps - done,
            shuffle=False,  # they are
            verbose=quiet,
            callbacks=session,
        )
