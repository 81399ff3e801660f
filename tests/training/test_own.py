"""A model and data of the caller's own get what every run has: checkpoints, resume, the best weights, a report."""

import itertools
import re

import keras
import numpy as np
import pytest
from keras import layers

import keras_residual as kr
from keras_residual.data import load_dataset
from keras_residual.training import train as training
from keras_residual.training.config import OWN, TrainConfig
from keras_residual.training.stopped import TrainingStopped
from keras_residual_cli.app import run

any_backend = pytest.mark.any_backend

RNG = np.random.default_rng(0)
Y = np.arange(120) % 3
X = (RNG.normal(size=(120, 5)) + 2 * Y[:, None]).astype("float32")
EPOCHS, STEPS = 3, 5


@keras.saving.register_keras_serializable("test_own")
class Written(keras.Model):
    """A class that is built when it is first called."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.first, self.drop, self.last = layers.Dense(8, "relu"), layers.Dropout(0.2), layers.Dense(3)

    def call(self, x, training=None):
        return self.last(self.drop(self.first(x), training=training))


class Closed(keras.Model):
    """A class that Keras cannot save."""

    def __init__(self, width):
        super().__init__()
        self.last = layers.Dense(width)

    def call(self, x):
        return self.last(x)


def sequential(ends="softmax"):
    return keras.Sequential([keras.Input((5,)), layers.Dense(8, "relu"), layers.Dropout(0.2), layers.Dense(3, ends)])


def functional():
    inputs = keras.Input((5,))
    hidden = kr.Residual(layers.Dense(8, "relu"))(layers.Dense(8)(inputs))
    return keras.Model(inputs, layers.Dense(3)(layers.BatchNormalization()(hidden)))


MODELS = {"sequential": sequential, "functional": functional, "class": Written}


def config(out, **settings):
    return TrainConfig(out=str(out), epochs=EPOCHS, batch_size=16, xray=False, save_every="1 step", **settings)


@pytest.fixture(autouse=True)
def reports(monkeypatch):
    """Drawing the report takes as long as training; returns what it was to be drawn from."""
    seen = []

    def write(run, *arguments, **named):
        seen.append((arguments, named))
        run.report.touch()

    monkeypatch.setattr(training, "write_report", write)
    return seen


def breaking(step):
    steps = itertools.count()

    def fail(batch, logs=None):
        if next(steps) == step:
            raise RuntimeError("broken")

    return keras.callbacks.LambdaCallback(on_train_batch_end=fail)


@pytest.mark.every("torch")
@pytest.mark.parametrize("kind", MODELS)
def test_a_broken_run_ends_as_an_unbroken_one(kind, tmp_path):
    def call(out, resume=None, **settings):
        keras.utils.set_random_seed(1)
        model = MODELS[kind]()
        metrics = ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")]
        result = kr.train(
            None if resume else config(out), model=model, data=(X, Y), metrics=metrics, resume=resume,
            optimizer=keras.optimizers.Adam(0.01, global_clipnorm=1.0), **settings,
        )  # fmt: skip
        return result, model

    whole, model = call(tmp_path / "whole")
    with pytest.raises(TrainingStopped, match=re.escape("Go on with: kr.train(resume=")):
        call(tmp_path / "cut", callbacks=[breaking(STEPS + 2)])
    rest, again = call(None, resume=tmp_path / "cut")
    timeless = {"train_seconds", "compile_seconds", "examples_per_second", "model"}  # Keras counts names on
    assert {k: v for k, v in rest.metrics.items() if k not in timeless} == {
        k: v for k, v in whole.metrics.items() if k not in timeless
    }
    assert [{**row, "seconds": 0} for row in rest.history] == [{**row, "seconds": 0} for row in whole.history]
    assert list(whole.history[0])[:5] == ["epoch", "loss", "val_loss", "accuracy", "val_accuracy"]
    assert {"top2", "val_top2"} <= whole.history[0].keys()
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    # The caller's model has the best weights, and they are what was tested.
    best = whole.load_model()
    np.testing.assert_allclose(best.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-5, atol=1e-6)


@any_backend
def test_a_compiled_model_is_trained_as_it_is_compiled(tmp_path, reports):
    model = functional()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    optimizer = model.optimizer
    metrics = kr.train(config(tmp_path / "run"), model=model, data=((X[:90], Y[:90]), (X[90:], Y[90:]))).metrics
    assert model.optimizer is optimizer
    # The test is that of Keras, on the part that was given.
    found = model.evaluate(X[90:], Y[90:], return_dict=True, verbose=0)
    assert metrics["test_loss"] == pytest.approx(found["loss"], rel=1e-5)
    assert metrics["test_accuracy"] == pytest.approx(found["accuracy"])
    ((dataset, logits, *_), _) = reports[0]
    assert (logits.shape, dataset.classes) == ((30, 3), ("0", "1", "2"))


@any_backend
def test_numbers_patience_and_the_optimizer_of_a_recipe(tmp_path):
    model = keras.Sequential([keras.Input((5,)), layers.Dense(2)])
    made = config(tmp_path / "run", recipe="wrn", patience=1).updated({"epochs": 8, "optimizer.learning_rate": 1e-9})
    result = kr.train(made, model=model, data=(X, X[:, :2]), callbacks=[keras.callbacks.TerminateOnNaN()])
    assert type(model.optimizer) is kr.optimizers.SGD
    assert model.optimizer.nesterov
    assert {"test_loss", "test_accuracy"} & result.metrics.keys() == {"test_loss"}
    assert len(result.history) < 8


@any_backend
@pytest.mark.parametrize("ends", [None, "softmax"])
def test_the_loss_suits_what_the_model_gives(tmp_path, ends):
    model = sequential(ends)
    kr.train(config(tmp_path / "run").updated({"epochs": 1}), model=model, data=(X, Y))
    assert model.loss.from_logits is (ends is None)


@any_backend
def test_a_model_on_data_of_the_library_and_a_name_on_arrays_of_the_caller(tmp_path):
    digits = load_dataset("digits", test_fraction=0.9)
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(10)])
    result = kr.train(config(tmp_path / "a").updated({"epochs": 1}), model=model, data=digits)
    assert 0 <= result.metrics["test_accuracy"] <= 1
    named = config(tmp_path / "b").updated({"epochs": 1, "data.test_fraction": 0.9})
    assert kr.train(named, model="small_resnet", data="digits").metrics["data"] == "digits"


class Rows:
    """Examples by their place, as a torch Dataset has them."""

    def __len__(self):
        return len(Y)

    def __getitem__(self, index):
        return X[index], int(Y[index])


@any_backend
@pytest.mark.parametrize(
    "data",
    [
        (X, Y),
        ((X[:90], Y[:90]), (X[90:], Y[90:])),
        {"train": (X[:90], Y[:90]), "test": (X[90:], Y[90:])},
        Rows(),
    ],
    ids=["pair", "parts", "dictionary", "object"],
)
def test_data_of_the_caller_for_a_network_of_the_library(data, tmp_path):
    result = kr.train(config(tmp_path / "run").updated({"epochs": 1}), data=data)
    assert result.metrics["model"] == "tabular_resnet"
    assert 0 <= result.metrics["test_accuracy"] <= 1
    assert result.load_model().input_shape == (None, 5)


def test_a_name_that_is_no_network_is_said_so_on_pictures(tmp_path):
    pictures = RNG.integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
    with pytest.raises(ValueError, match="'resnot50'"):
        kr.train(config(tmp_path / "run"), model="resnot50", data=(pictures, np.arange(40) % 2))


@any_backend
def test_a_network_with_parts_is_fine_tuned(tmp_path):
    y = np.arange(60) % 3
    x = (RNG.normal(size=(60, 8, 8, 3)) + y[:, None, None, None]).astype("float32")
    model = kr.create_model("small_resnet", input_shape=(8, 8, 3), num_classes=3)
    before = [np.array(w) for w in model.get_weights()]
    made = config(tmp_path / "run").updated({"epochs": 1, "finetune.head_epochs": 1})
    kr.train(made, model=model, data=(x, y))
    changed = [bool(np.abs(a - b).max()) for a, b in zip(model.get_weights(), before, strict=True)]
    assert changed == [False] * (len(changed) - 2) + [True, True]


@any_backend
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": 3}, "train: `model` must be a Keras model, or the name of one, but received 3 (int)"),
        ({"loss": "mse"}, "train: `loss` must be left out for a model that the configuration names"),
        ({"model": Closed, "data": (X, Y)}, "cannot be saved"),
        ({"model": sequential, "data": (X[:, :4], Y)}, "cannot be called with an input of shape (4,), float32"),
        ({"model": sequential, "data": (X, Y[:7])}, "train: `data` must be (x, y) of one length"),
        (
            {"model": sequential, "data": X},
            "Data 'ndarray': example 0 is array([",
        ),
        ({"model": sequential, "data": ({"a": X}, Y)}, "a model with several inputs is not"),
        ({"model": sequential, "data": (X, Y), "recipe": "finetune"}, "parts named stem, stage1, … and head"),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path, arguments, message):
    make = arguments.get("model")
    if callable(make):
        arguments = arguments | {"model": make(3) if make is Closed else make()}
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        kr.train(config(tmp_path / "run"), **arguments)
    assert not (tmp_path / "run").exists()


@any_backend
def test_the_command_cannot_go_on_with_it(tmp_path, capfd):
    with pytest.raises(TrainingStopped):
        kr.train(config(tmp_path / "run"), model=sequential(), data=(X, Y), callbacks=[breaking(2)])
    assert run(["train", "--resume", str(tmp_path / "run")]) == 2
    told = capfd.readouterr().err
    assert "this run needs the caller's own model and data" in told
    assert f"kr.train(model=..., data=..., resume='{tmp_path / 'run'}')" in told
    assert training.prepare(resume=tmp_path / "run", own=training.Own(sequential(), (X, Y))).config.model.name == OWN
    with pytest.raises(ValueError, match=re.escape("training examples are new")):
        training.prepare(resume=tmp_path / "run", own=training.Own(sequential(), (X + 1, Y)))
