"""Where numbers broke in a training: the step, found again from the newest state that is sound, and the block."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import keras
import numpy as np

from keras_residual._errors import printable
from keras_residual.data import Batches
from keras_residual.training.fit import SplitBatches
from keras_residual.training.session import Session
from keras_residual.xray import xray

_RULES = ("not_finite", "not_a_number", "overflow")
_MOST = 500  # characters of a finding


def where_it_broke(learner: keras.Model, batches: Batches | SplitBatches, session: Session) -> str:
    """Returns a sentence about the step and the block in which a loss, a gradient or a weight became no number.

    The training is taken back to the newest state that is sound, which holds the random states too, and done again
    from there, step by step, to the first whose loss or weights are not finite. An X-ray of its batch with the weights
    before it names the block. The learner has these weights afterwards.

    Args:
        learner: The compiled network.
        batches: Those of the training.
        session: The training.

    Returns:
        The sentence; empty where it does not happen again, or where there is nothing to go back to.
    """
    last = session.step
    with suppress(Exception):  # what stopped the training is what is told
        for step in range(session.back(), last + 1):
            before = [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in learner.variables]
            x, y = batches.batch(step)
            loss: Any = learner.train_on_batch(x, y, return_dict=True)
            weights = [np.asarray(keras.ops.convert_to_numpy(v.value)) for v in learner.trainable_variables]
            sound = [np.isfinite(weight).all() for weight in weights]
            if math.isfinite(float(loss["loss"])) and all(sound):
                continue
            for variable, value in zip(learner.variables, before, strict=True):
                variable.assign(value)
            epoch, within = divmod(step, batches.steps)
            block = ""
            with suppress(Exception):  # there is still the step
                block = _block(learner, x, y)
            return f"It broke in step {within + 1} of epoch {epoch + 1}{block}."
    return ""


def _block(learner: keras.Model, x: Any, y: Any) -> str:
    report = xray(learner, x, y, learner.loss, verbose=False)
    found = next((advice for advice in report.advice if any(word in advice.rule for word in _RULES)), None)
    return "" if found is None else f", first in {printable(found.block)}: {printable(found.finding, _MOST)}"
