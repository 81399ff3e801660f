"""A training whose numbers break names the step and the block, and leaves a checkpoint that is sound."""

import re

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_residual as kr
from keras_residual.training.checkpoint import Checkpoints
from keras_residual.training.config import TrainConfig
from keras_residual.training.run_directory import RunDirectory
from keras_residual.training.stopped import TrainingStopped

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(80, 6)).astype("float32"), RNG.normal(size=(80, 1)).astype("float32")


@keras.saving.register_keras_serializable("test_not_finite")
class Breaks(layers.Layer):
    """From a number of steps on its output, or its gradient alone, is no number."""

    def __init__(self, after, gradient, **settings):
        super().__init__(**settings)
        self.after, self.gradient = after, gradient
        self.calls = self.add_weight(name="calls", shape=(), initializer="zeros", trainable=False)

    def call(self, x, training=False):
        if training:
            self.calls.assign_add(1.0)
        due = ops.cast(self.calls > self.after, "float32")
        zero = 0.0 * ops.sum(x, axis=-1, keepdims=True)
        if self.gradient:  # the root of 0 is 0, and its slope is none
            return x + ops.sqrt(zero * zero + (1.0 - due)) - (1.0 - due)
        return x + zero / (1.0 - due)

    def get_config(self):
        return super().get_config() | {"after": self.after, "gradient": self.gradient}


def model(after, gradient):
    inputs = keras.Input((6,))
    hidden = kr.Residual(layers.Dense(6, "tanh"), name="sound")(inputs)
    hidden = kr.Residual([layers.Dense(6, "tanh"), Breaks(after, gradient)], name="broken")(hidden)
    return keras.Model(inputs, layers.Dense(1, name="head")(kr.Residual(layers.Dense(6), name="after")(hidden)))


@pytest.mark.every
@pytest.mark.parametrize(("gradient", "words"), [(False, "NaN"), (True, "gradient")])
def test_the_step_and_the_block_are_named_and_a_sound_checkpoint_stays(tmp_path, gradient, words):
    config = TrainConfig(out=str(tmp_path / "run"), epochs=3, batch_size=16, xray=False, save_every="1 step")
    learner = model(5.0, gradient)  # 3 steps in an epoch
    with pytest.raises(TrainingStopped, match="loss is nan") as stopped:
        kr.train(config, model=learner, data=(X, Y), optimizer=kr.optimizers.SGD(1e-3), loss="mse")
    found = re.search(r"It broke in step (\d) of epoch (\d), first in broken: (.*)", str(stopped.value))
    assert found is not None, stopped.value
    assert (found[1], found[2]) == ("3", "2")
    assert words in found[3]
    state, notes = Checkpoints(RunDirectory(tmp_path / "run")).newest()
    assert state["step"] == 5
    assert not notes
    assert all(np.isfinite(weight).all() for weight in learner.get_weights())
