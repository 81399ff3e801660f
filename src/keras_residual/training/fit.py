"""The optimisation itself: AdamW with warm-up and cosine decay, gone on with from any step."""

from __future__ import annotations

from typing import Any

import keras

from keras_residual.data import Batches, PaddedBatches
from keras_residual.stacks.state import rank_in_block
from keras_residual.training.config import OptimizerConfig, settled
from keras_residual.training.record import EXACT
from keras_residual.training.session import Session


def make_optimizer(config: OptimizerConfig, *, steps: int) -> keras.optimizers.Optimizer:
    """Returns AdamW over `steps` steps."""
    rate = settled(config.learning_rate)
    warmup = round(config.warmup * steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else rate,
        decay_steps=max(1, steps - warmup),
        warmup_target=rate if warmup else None,
        warmup_steps=warmup,
    )
    # Keras annotates the rate as a number; its documentation has schedules too.
    rates: Any = schedule
    return keras.optimizers.AdamW(rates, weight_decay=settled(config.weight_decay))


def compile_learner(learner: keras.Model, optimizer: keras.optimizers.Optimizer, *, classes: int) -> None:
    """Compiles with cross-entropy and accuracy for classes, with the squared error for numbers."""
    # Biases, norm parameters and the scales of branches are few and want no pull towards zero: all but matrices.
    few = [variable for variable in learner.trainable_variables if rank_in_block(variable) < 2]
    optimizer.exclude_from_weight_decay(var_list=few)
    if classes:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        exact = keras.metrics.SparseCategoricalCrossentropy(EXACT, from_logits=True)
        learner.compile(optimizer=optimizer, loss=loss, weighted_metrics=["accuracy", exact])
    else:
        exact = keras.metrics.MeanSquaredError(EXACT)
        learner.compile(optimizer=optimizer, loss="mean_squared_error", weighted_metrics=[exact])


def fit(learner: keras.Model, batches: Batches, held_back: PaddedBatches, session: Session) -> None:
    """Trains a compiled learner from the session's step to its last one."""
    session.build(held_back)
    quiet: Any = 0  # annotated as text, documented as a number
    while not session.ended:
        epoch, done = divmod(session.step, batches.steps)
        learner.fit(
            batches.since(session.step),
            validation_data=held_back,
            initial_epoch=epoch,
            # Keras counts as many steps in each epoch of a call, so what is left of one is a call of its own.
            epochs=epoch + 1 if done else session.epochs,
            steps_per_epoch=batches.steps - done,
            shuffle=False,  # they are
            verbose=quiet,
            callbacks=session,
        )
