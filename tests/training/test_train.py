"""A run from start to end: what it leaves, that one seed decides it, and that it stops when nothing can come of it."""

import importlib
import json
import re
import sys
import types

import keras
import numpy as np
import pytest

from keras_residual._atomic import is_disk_full
from keras_residual.training import train as training
from keras_residual.training.config import TrainConfig
from keras_residual.training.config_file import read_config
from keras_residual.training.evaluate import evaluate, load_test_data
from keras_residual.training.record import Record
from keras_residual.training.run_directory import RunDirectory
from keras_residual.training.saved import load_saved, raw_outputs
from keras_residual.training.scores import score
from keras_residual.training.stopped import TrainingStopped

KEYS = [
    "data",
    "model",
    "params",
    "epochs",
    "steps",
    "train_seconds",
    "compile_seconds",
    "examples_per_second",
    "test_loss",
    "test_accuracy",
    "test_majority",
    "test_precision",
    "test_recall",
    "test_auc",
    "backend",
    "versions",
    "seed",
]


def config(tmp_path, source="wine", *settings):
    return TrainConfig(out=str(tmp_path / "run")).with_overrides(
        [f"data.source={source}", "epochs=2", "seed=3", *settings]
    )


def test_a_run_leaves_what_it_says(tmp_path):
    result = training.train(config(tmp_path))
    run = tmp_path / "run"
    assert sorted(path.name for path in run.iterdir()) == [
        "config.toml",
        "history.csv",
        "last",
        "log.txt",
        "metrics.json",
        "model.keras",
        "report.html",
        "trained_on.npz",
    ]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics == result.metrics
    assert list(metrics) == KEYS
    assert metrics["backend"] == keras.backend.backend()
    framework = importlib.import_module(metrics["backend"])
    assert metrics["versions"][metrics["backend"]] == framework.__version__
    assert metrics["params"] == result.load_model().count_params()
    resolved = read_config(run / "config.toml")
    assert resolved.data.classes == ("class_0", "class_1", "class_2")
    assert len(resolved.data.features) == 13
    assert training.prepare(resolved.with_overrides([f"out={tmp_path / 'other'}"])).config == resolved.with_overrides(
        [f"out={tmp_path / 'other'}"]
    )
    rows = (run / "history.csv").read_text().splitlines()
    assert rows[0] == "epoch,loss,val_loss,accuracy,val_accuracy,seconds"
    assert len(rows) == 3
    # What the run says of its best model is what evaluation finds for the file, on raw data.
    saved = load_saved(run)
    found = evaluate(saved, load_test_data(saved))
    assert found["examples"] == 36
    assert found["test_loss"] == pytest.approx(metrics["test_loss"], rel=1e-6)
    assert found["test_accuracy"] == metrics["test_accuracy"]
    # The history's validation numbers are exact although 14 examples make one batch of 16.
    prepared = training.prepare(config(tmp_path / "again"))
    outputs = raw_outputs(saved.model, prepared.dataset.x_train[prepared.choose])
    chosen = score(outputs, prepared.dataset.y_train[prepared.choose], classes=3)
    best = result.history[result.best_epoch - 1]
    assert best["val_loss"] == pytest.approx(chosen["test_loss"], rel=1e-5)
    assert best["val_accuracy"] == pytest.approx(chosen["test_accuracy"])


def test_one_seed_one_result(tmp_path):
    small = [
        "model.drop_path_rate=0.2",
        "data.test_fraction=0.8",
        "xray=false",
    ]  # few pictures, and every kind of randomness
    first = training.train(config(tmp_path / "a", "digits", "epochs=1", *small))
    again = training.train(config(tmp_path / "b", "digits", "epochs=1", *small))
    timeless = {"train_seconds", "compile_seconds", "examples_per_second"}
    assert {key: value for key, value in first.metrics.items() if key not in timeless} == {
        key: value for key, value in again.metrics.items() if key not in timeless
    }
    assert [{**row, "seconds": 0} for row in first.history] == [{**row, "seconds": 0} for row in again.history]


@pytest.mark.any_backend
def test_another_seed_another_split(tmp_path):
    first, again, other = (training.prepare(config(tmp_path, "wine", f"seed={seed}")) for seed in (1, 1, 2))
    assert np.array_equal(first.dataset.x_test, again.dataset.x_test)
    assert np.array_equal(first.choose, again.choose)
    assert not np.array_equal(first.dataset.x_test, other.dataset.x_test)
    assert not np.array_equal(first.choose, other.choose)


def test_numbers_are_learned_whatever_their_unit(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    # In the unit of all, in farad, and in seconds since 1970, of which 32-bit floats know those of every two minutes.
    table = np.column_stack([x * [1, 1e-12, 30] + [0, 0, 1.7e9], 1e-6 * (x @ [1.0, -2.0, 1.5]) + 5e-3])
    (tmp_path / "tiny.csv").write_text("a,b,c,y\n" + "\n".join(",".join(f"{v:.17g}" for v in row) for row in table))
    result = training.train(config(tmp_path, tmp_path / "tiny.csv", "data.target=y", "epochs=15"))
    assert result.metrics["test_r2"] > 0.8
    assert result.metrics["test_rmse"] == pytest.approx(result.metrics["test_loss"] ** 0.5)
    # The history's loss is in the target's units too.
    assert result.history[-1]["val_loss"] < 1e-11
    saved = load_saved(tmp_path / "run")
    found = evaluate(saved, load_test_data(saved))
    assert found["test_r2"] == pytest.approx(result.metrics["test_r2"], rel=1e-6)


def test_the_best_epoch_is_the_one_that_is_kept(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(
        "keras_residual.training.run_directory.RunDirectory.save_model", lambda run, model: kept.append(1)
    )
    prepared = training.prepare(config(tmp_path))
    (tmp_path / "run").mkdir()
    record = Record(RunDirectory(tmp_path / "run"), prepared.assembled)
    for epoch, (accuracy, loss) in enumerate([(0.5, 1.0), (0.75, 2.0), (0.75, 1.5), (0.75, 1.5), (0.5, 0.1)]):
        record.on_epoch_begin(epoch)
        record.on_epoch_end(
            epoch, {"exact_loss": loss, "val_exact_loss": loss, "accuracy": 1.0, "val_accuracy": accuracy}
        )
    assert record.best_epoch == 3
    assert len(kept) == 3


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    class Poison(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                weights = self.model.get_weights()
                self.model.set_weights([np.full_like(weight, np.nan) for weight in weights])

    run = tmp_path / "run"
    message = (
        "Training stopped: the loss is nan from step 1 of epoch 2 on. What decides the size of a step: "
        "optimizer.learning_rate 0.001, optimizer.weight_decay 0.05, batch_size 16. Change it with --set KEY=VALUE. "
        f"Kept in {run}: model.keras, history.csv, config.toml, trained_on.npz, log.txt."
    )
    with pytest.raises(TrainingStopped, match=f"^{re.escape(message)}$"):
        training.train(config(tmp_path), callbacks=[Poison()])
    assert np.isfinite(load_saved(run).model.predict(np.zeros((1, 13)), verbose=0)).all()
    assert len((run / "history.csv").read_text().splitlines()) == 2


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("shift", "rule"),
    [(8, "less than 8, the smaller side of the pictures"), (10**6, "less than or equal to 4096 or 'auto'")],
)
def test_pictures_are_not_shifted_out_of_sight(tmp_path, shift, rule):
    message = f"TrainConfig: `augment.shift` must be {rule}, but received {shift} (int)."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        training.prepare(config(tmp_path, "digits", f"augment.shift={shift}"))


def test_the_picture_models_take_raw_pictures_in_either_data_format(tmp_path):
    prepared = training.prepare(config(tmp_path, "digits"))
    keras.config.set_image_data_format("channels_first")
    turned = training.prepare(config(tmp_path, "digits"))
    assert prepared.assembled.raw.input_shape == turned.assembled.raw.input_shape == (None, 8, 8, 1)
    assert prepared.assembled.raw.count_params() == turned.assembled.raw.count_params()


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(28, "No space left on device"), True),
        (
            RuntimeError("Unable to close file (file write failed: errno = 28, error message = '...')"),
            True,
        ),
        (OSError(30, "Read-only file system"), False),
        (ValueError("28"), False),
    ],
)
def test_a_full_disk_is_known_by_whatever_reports_it(error, full):
    assert is_disk_full(error) is full
    wrapped = RuntimeError("while saving")
    wrapped.__cause__ = error
    assert is_disk_full(wrapped) is full


def test_the_step_in_which_the_loss_is_lost_is_named_with_what_the_run_was_told(tmp_path):
    # No learning rate is at fault here, and the message does not say so. Once a step is all that it takes.
    settings = config(tmp_path, "wine", "optimizer.weight_decay=1e30", "xray=false")
    with pytest.raises(TrainingStopped, match=r"the loss is (nan|inf) from step [2-8] of epoch 1 on\. ") as caught:
        training.train(settings)
    assert "optimizer.learning_rate 0.001, optimizer.weight_decay 1e+30, batch_size 16." in str(caught.value)
    kept = f"No epoch was finished. Kept in {tmp_path / 'run'}: config.toml, trained_on.npz, log.txt."
    assert str(caught.value).endswith(kept)
    (line,) = (tmp_path / "run" / "log.txt").read_text().splitlines()[1:]
    assert "Stopped: the loss is" in line


@pytest.mark.any_backend
def test_speed_is_that_of_a_usual_step_whatever_was_compiled_and_waited_for(monkeypatch, tmp_path):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    record = Record(RunDirectory(tmp_path), None)
    assert record.speed(32) == {"compile_seconds": None, "examples_per_second": None}
    # A step that compiles, usual ones, and one in which the lid of the laptop was down for an hour.
    for step, seconds in enumerate([12.5, 0.5, 0.5, 3600.0, 0.5]):
        record.on_train_batch_begin(step)
        now[0] += seconds
        record.on_train_batch_end(step, {"loss": 1.0})
        now[0] += 100.0  # between steps
    for step, seconds in enumerate([4.25, 0.25, 0.25]):
        record.on_test_batch_begin(step)
        now[0] += seconds
        record.on_test_batch_end(step)
    assert record.speed(32) == {"compile_seconds": 16.0, "examples_per_second": 64.0}


@pytest.mark.any_backend
def test_a_result_is_a_table_in_a_notebook(tmp_path):
    metrics = {"model": "<b>net</b>", "data": "d", "test_accuracy": 0.87654321, "versions": {"keras": "3"}}
    shown = training.TrainResult(tmp_path / "<run>", metrics, [], 3)._repr_html_()
    assert "&lt;b&gt;net&lt;/b&gt; on d, epoch 3 kept in" in shown
    assert "&lt;run&gt;" in shown
    assert '<td style="text-align: left">87.65 %</td>' in shown
    assert "versions" not in shown


class Kernel:
    """What a notebook's kernel offers of IPython, and all that was displayed."""

    def __init__(self):
        self.shown = []
        self.display = types.SimpleNamespace(HTML=str, display=self._display)
        self.get_ipython = lambda: types.SimpleNamespace(kernel=object())

    def _display(self, text, *, display_id):
        self.shown.append(text)
        return types.SimpleNamespace(update=self.shown.append)


def test_in_a_notebook_a_bar_shows_how_far_it_is(tmp_path, monkeypatch):
    kernel = Kernel()
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    monkeypatch.setitem(sys.modules, "IPython.display", kernel.display)
    training.train(config(tmp_path, "wine", "xray=false"))
    assert kernel.shown[0] == '<progress value="0" max="16"></progress> the first step'
    numbers = "".join(rf"  {key} \d+\.\d+" for key in ("loss", "val_loss"))
    numbers += "".join(rf"  {key} \d+\.\d\d %" for key in ("accuracy", "val_accuracy"))
    assert re.fullmatch(rf'<progress value="16" max="16"></progress> epoch 2/2{numbers}', kernel.shown[-1])
