"""Too little memory for a batch: the run begins anew in parts, whose steps are those of the whole batch."""

import importlib
import re

import keras
import numpy as np
import pytest
from keras import layers

import keras_residual as kr
from keras_residual.training.config import TrainConfig
from keras_residual.training.config_file import read_config
from keras_residual.training.stopped import TrainingStopped

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(80, 4)).astype("float32"), RNG.normal(size=(80, 1)).astype("float32")


def out_of_memory():
    """Returns the error that the backend raises where an accelerator has no memory left."""
    framework = importlib.import_module(keras.backend.backend())
    if keras.backend.backend() == "torch":
        return framework.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    if keras.backend.backend() == "tensorflow":
        return MemoryError("OOM when allocating tensor with shape[64,112]")  # a ResourceExhaustedError of the program
    return framework.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 123 bytes.")


@keras.saving.register_keras_serializable("test_memory")
class Holds(layers.Layer):
    """A layer that has memory for so many examples."""

    most = 10**9

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_jit = keras.backend.backend() != "tensorflow"

    def call(self, x):
        if keras.backend.backend() != "tensorflow":
            self.take(x.shape[0] or 0)
            return x
        # A program may take batches of any size: how many examples there are is known when it runs.
        framework = importlib.import_module("tensorflow")
        with framework.control_dependencies([framework.numpy_function(self.take, [framework.shape(x)[0]], "int32")]):
            return framework.identity(x)

    @staticmethod
    def take(examples):
        if examples > Holds.most:
            raise out_of_memory()
        return np.int32(examples)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


@pytest.fixture
def memory(monkeypatch):
    return lambda most: monkeypatch.setattr(Holds, "most", most)


def trained(out, *settings, **call):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, "tanh"), Holds(), layers.Dense(1)])
    plain = ["optimizer.name=sgd", "optimizer.schedule=constant", "optimizer.warmup=0.0", "xray=false"]
    config = TrainConfig(out=str(out), epochs=2, batch_size=16).with_overrides(
        ["optimizer.learning_rate=0.05", *plain, *settings]
    )
    return kr.train(config, model=model, data=(X, Y), **call), model


@pytest.mark.every
def test_a_run_begins_anew_in_parts_with_the_same_steps(tmp_path, memory, capfd):
    whole, model = trained(tmp_path / "whole")
    memory(5)
    parts, again = trained(tmp_path / "parts")
    told = capfd.readouterr().out
    assert "Not enough memory for 16 examples at a time" in told
    assert "Not enough memory for 8 examples at a time" in told
    assert "in 4 parts of 4 (split_batch=4)" in told
    assert "batch norms take their statistics from 4 examples" in (tmp_path / "parts" / "log.txt").read_text()
    assert read_config(tmp_path / "parts" / "config.toml").split_batch == 4
    assert parts.metrics["steps"] == 4 * whole.metrics["steps"]
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert [row["val_loss"] for row in parts.history] == pytest.approx([row["val_loss"] for row in whole.history], 1e-4)


@pytest.mark.any_backend
def test_an_optimizer_of_the_caller_stays_and_the_run_stops(tmp_path, memory):
    memory(5)
    with pytest.raises(TrainingStopped, match="there is not enough memory"):
        trained(tmp_path / "run", optimizer="sgd")


@pytest.mark.any_backend
def test_parts_divide_the_batch(tmp_path):
    with pytest.raises(ValueError, match=re.escape("`split_batch` must be a divisor of batch_size, 16")):
        trained(tmp_path / "run", "split_batch=3")
