"""The training itself, gone on with from any step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_residual.data import Batches, PaddedBatches
from keras_residual.training.session import Session


def fit(
    learner: keras.Model, batches: Batches, held_back: PaddedBatches, session: Session, resized: Sequence[int] = ()
) -> None:
    """Trains a compiled learner from the session's step to its last one.

    Args:
        learner: The model.
        batches: What it learns from.
        held_back: By which the best epoch is chosen.
        session: Where the training is.
        resized: Epochs at which the batches get another shape.
    """
    session.build(held_back)
    quiet: Any = 0  # annotated as text, documented as a number
    while not session.ended:
        epoch, done = divmod(session.step, batches.steps)
        learner.fit(
            batches.since(session.step),
            validation_data=held_back,
            initial_epoch=epoch,
            # Keras counts as many steps in each epoch of a call, so what is left of one is a call of its own.
            # TensorFlow takes the shape of a call's first batches for that of all.
            epochs=epoch + 1 if done else min([later for later in resized if later > epoch] + [session.epochs]),
            steps_per_epoch=batches.steps - done,
            shuffle=False,  # they are
            verbose=quiet,
            callbacks=session,
        )
