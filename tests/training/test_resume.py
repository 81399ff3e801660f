"""A run that goes on ends with the numbers of an unbroken one; what cannot be gone on with is refused in one line."""

import dataclasses
import random
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_residual.training import prepare as preparing
from keras_residual.training import train as training
from keras_residual.training.checkpoint import Checkpoints
from keras_residual.training.config import TrainConfig
from keras_residual.training.config_file import read_config
from keras_residual.training.run_directory import RunDirectory
from keras_residual.training.session import Session
from keras_residual.training.stopped import TrainingStopped

any_backend = pytest.mark.any_backend

EPOCHS, STEPS = 3, 8  # of 128 examples in batches of 16


def config(out, *settings):
    # Stochastic depth draws from Keras's generators.
    base = ["data.source=wine", f"epochs={EPOCHS}", "seed=3", "xray=false", "model.drop_path_rate=0.3"]
    return TrainConfig(out=str(out)).with_overrides([*base, "save_every=1 step", *settings])


class Break(keras.callbacks.Callback):
    """Breaks the run before it has seen the end of a step, or of an epoch."""

    def __init__(self, step=None, epoch=None):
        super().__init__()
        self.at_step, self.at_epoch, self.seen = step, epoch, 0

    def on_train_batch_end(self, batch, logs=None):
        if self.seen == self.at_step:
            raise RuntimeError("broken")
        self.seen += 1

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.at_epoch:
            raise RuntimeError("broken")


def left(result):
    """All that a run leaves that does not tell the time."""
    timeless = {"train_seconds", "compile_seconds", "examples_per_second"}
    run = RunDirectory(result.run_directory)
    (last,) = [path for path in run.last.glob("*.npz") if path.name == f"step-{result.metrics['steps']}.npz"]
    with np.load(last) as file:
        arrays = [file[str(index)] for index in range(len(file.files) - 1)]
    return (
        {key: value for key, value in result.metrics.items() if key not in timeless},
        [{**row, "seconds": 0} for row in result.history],
        result.best_epoch,
        [weight.tobytes() for weight in result.load_model().get_weights()],
        # Weights, optimizer and seeds after the last step, and the backend's generators.
        [array.tobytes() for array in arrays],
    )


def broken(out, *settings, callbacks=(), **when):
    with pytest.raises(TrainingStopped, match="broken"):
        training.train(config(out, *settings), callbacks=[*callbacks, Break(**when)])


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Drawing the report takes as long as training."""
    monkeypatch.setattr(training, "write_report", lambda run, *_, **__: run.report.touch())


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return training.train(config(tmp_path_factory.mktemp("unbroken") / "run"))


@pytest.mark.every
def test_a_run_broken_within_an_epoch_ends_as_an_unbroken_one(unbroken, tmp_path):
    broken(tmp_path / "run", step=STEPS + 5)
    keras.utils.set_random_seed(99)
    result = training.train(resume=tmp_path / "run", callbacks=[Break()])
    assert left(result) == left(unbroken)


@any_backend
@pytest.mark.parametrize(
    "when",
    [
        {"step": STEPS - 1},
        {"epoch": 0},
        *(
            pytest.param(when, marks=pytest.mark.slow)
            for when in ({"step": 0}, {"step": 1}, {"step": STEPS}, {"epoch": EPOCHS - 1})
        ),
    ],
    ids=str,
)
def test_wherever_it_is_broken_it_ends_as_an_unbroken_one(when, unbroken, tmp_path):
    broken(tmp_path / "run", **when)
    keras.utils.set_random_seed(99)
    assert left(training.train(resume=tmp_path / "run", callbacks=[Break()])) == left(unbroken)


class Draws(keras.callbacks.Callback):
    """Draws from every generator that the user may draw from, and counts its batches."""

    def __init__(self):
        super().__init__()
        self.drawn = []

    def on_train_batch_end(self, batch, logs=None):
        numbers = np.random.random(), random.random(), float(keras.random.uniform(()))  # noqa: NPY002
        self.drawn = [*self.drawn, (batch, *numbers)]


@any_backend
def test_what_callbacks_know_goes_on(tmp_path):
    def callbacks():
        # With a least difference Keras turns its sign when it first looks, and once only.
        stop = keras.callbacks.EarlyStopping("val_loss", min_delta=0.05, patience=1, restore_best_weights=True)
        return [Draws(), stop]

    whole, parts = callbacks(), callbacks()
    ended = training.train(config(tmp_path / "a", "epochs=12"), callbacks=whole)
    assert 3 < len(ended.history) < 12
    broken(tmp_path / "b", "epochs=12", callbacks=callbacks(), step=3 * STEPS + 2)
    result = training.train(resume=tmp_path / "b", callbacks=[*parts, Break()])
    assert result.history[-1]["epoch"] == len(ended.history)
    assert parts[0].drawn == whole[0].drawn
    assert [entry[0] for entry in parts[0].drawn[:STEPS]] == list(range(STEPS))
    assert vars(parts[1])["best"] == vars(whole[1])["best"]
    assert result.metrics["test_loss"] == ended.metrics["test_loss"]
    message = f"The run {tmp_path / 'b'} is finished: it ended early, after {len(ended.history)} of 12 epochs."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        training.prepare(resume=tmp_path / "b")


@any_backend
def test_callbacks_that_are_missing_are_asked_for(tmp_path):
    broken(tmp_path / "run", callbacks=[Draws()], step=3)
    message = (
        "Training stopped: The run was trained with callbacks whose state it has kept and that are missing: "
        "Draws, Break. Pass them again: train(resume=..., callbacks=[...])."
    )
    with pytest.raises(TrainingStopped, match=f"^{re.escape(message)}"):
        training.train(resume=tmp_path / "run")


@any_backend
def test_a_checkpoint_of_another_network_is_refused(some, tmp_path):
    out = shutil.copytree(some, tmp_path / "run")
    state, _ = Checkpoints(RunDirectory(out)).newest()
    state["variables"].pop()
    Checkpoints(RunDirectory(out)).write(state, state["step"] + 1)
    message = "Training stopped: The checkpoint in .* is that of another network or optimizer than this version makes"
    with pytest.raises(TrainingStopped, match=f"^{message}"):
        training.train(resume=out, callbacks=[Break()])


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    """A run that was broken in its first epoch."""
    out = tmp_path_factory.mktemp("some") / "run"
    broken(out, step=4)
    return out


@any_backend
@pytest.mark.every
@pytest.mark.parametrize(
    ("settings", "what"),
    [
        (["optimizer.learning_rate=0.5"], "optimizer.learning_rate is 0.5 and was 0.001"),
        (["epochs=2"], "epochs is 2 and was 3"),
        (["seed=4", "data.drop=ash"], "seed is 4 and was 3, data.drop is ('ash',) and was ()"),
    ],
)
def test_other_settings_are_refused_with_the_difference(settings, what, some):
    message = (
        f"The run {some} cannot go on with other settings than it began with, but {what}. "
        f"Begin a new run: keras-residual train --config {some} --set KEY=VALUE"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        training.prepare(read_config(some / "config.toml").with_overrides(settings), resume=some)


@any_backend
def test_the_call_that_began_the_run_goes_on_with_it_and_may_change_how_long(some):
    settings = ["save_every=2 minutes", "max_minutes=5", "patience=9", "epochs=7"]
    prepared = training.prepare(config(some, *settings), resume=some)
    assert prepared.step == 4
    assert prepared.notes == (
        "Epochs 3 → 7: from here on the learning rate follows its schedule, 'cosine', over the steps of all 7.",
    )
    assert prepared.config.patience == 9
    assert training.prepare(resume=some).notes == ()


@any_backend
def test_another_place_is_refused(some, tmp_path):
    with pytest.raises(
        ValueError, match=r"^A run goes on in its own directory, .*, but `out` is .*\. Leave it away\.$"
    ):
        training.prepare(config(tmp_path / "other"), resume=some)


@any_backend
def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^There is no run to go on with in '.*': it has no config\.toml\.$"):
        training.prepare(resume=tmp_path)


@any_backend
def test_another_backend_is_refused_with_the_call(some, monkeypatch):
    monkeypatch.setattr("keras_residual.training.resume.BACKEND", "another")
    name = keras.backend.backend()
    message = (
        f"The run {some} was trained on {name}, whose random numbers and rounding another does not have. "
        f"Go on with: KERAS_BACKEND={name} keras-residual train --resume {some}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        training.prepare(resume=some)


@any_backend
def test_another_version_is_said(some, monkeypatch):
    monkeypatch.setattr("keras_residual.training.resume.VERSION", "99")
    (note,) = training.prepare(resume=some).notes
    assert re.fullmatch(r"Other versions than before, so the numbers may not go on exactly: \w+ .+ → 99\.", note)


def change_one(dataset):
    return dataclasses.replace(dataset, x_train=dataset.x_train + (np.arange(len(dataset.x_train)) == 5)[:, None])


def reorder(dataset):
    return dataclasses.replace(dataset, x_train=dataset.x_train[::-1], y_train=dataset.y_train[::-1])


def change_test(dataset):
    return dataclasses.replace(dataset, y_test=np.roll(dataset.y_test, 1))


@any_backend
@pytest.mark.every
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (change_one, "1 of 142 training examples are new"),
        (reorder, "there are others, or they come in another order"),
        (change_test, "the examples of the test are others"),
    ],
)
def test_data_that_have_changed_are_refused(change, what, some, monkeypatch):
    load = preparing.load_dataset
    monkeypatch.setattr(preparing, "load_dataset", lambda *args, **named: change(load(*args, **named)))
    message = (
        f"The data 'wine' have changed since {some} was trained on them: {what}. "
        f"Begin a new run: keras-residual train --config {some}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        training.prepare(resume=some)


@any_backend
def test_two_cannot_work_on_one_run(some):
    message = f"Another process works on the run directory {str(some)!r}. Wait until it has ended."
    with RunDirectory(some).alone(), pytest.raises(FileExistsError, match=f"^{re.escape(message)}$"):
        training.prepare(resume=some)


@any_backend
def test_a_finished_run_says_how_to_go_on_and_goes_on_with_more_epochs(unbroken):
    run = unbroken.run_directory
    message = (
        f"The run {run} is finished: all 3 epochs are done. "
        f"To train it on: keras-residual train --resume {run} --epochs 6"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        training.prepare(resume=run)
    prepared = training.prepare(read_config(run / "config.toml").with_overrides(["epochs=4"]), resume=run)
    assert prepared.step == EPOCHS * STEPS
    assert len(prepared.notes) == 1


@pytest.mark.slow
@any_backend
def test_training_that_was_done_is_reported_though_it_was_broken_before(unbroken, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(training, "write_report", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("broken")))
        with pytest.raises(TrainingStopped, match="broken"):
            training.train(config(tmp_path / "run"))
    assert left(training.train(resume=tmp_path / "run")) == left(unbroken)


@any_backend
def test_a_time_limit_stops_within_an_epoch_and_leaves_a_report(unbroken, tmp_path, monkeypatch):
    times = iter([*[0.0] * 8, *[1e9] * 10**4])
    with monkeypatch.context() as patch:
        patch.setattr(Session, "_now", property(lambda _: next(times)))
        stopped = training.train(config(tmp_path / "run", "max_minutes=60"))
    assert 0 < stopped.metrics["steps"] < STEPS
    assert stopped.go_on == f"keras-residual train --resume {tmp_path / 'run'}"
    assert (tmp_path / "run" / "report.html").exists()
    result = training.train(resume=tmp_path / "run")
    assert (result.go_on, left(result)) == (None, left(unbroken))


@any_backend
def test_patience_ends_a_run_that_gets_no_better(tmp_path):
    result = training.train(config(tmp_path / "run", "epochs=40", "patience=2", "optimizer.learning_rate=1e-30"))
    assert len(result.history) == result.best_epoch + 2 < 40


@any_backend
def test_a_disk_that_is_full_costs_a_checkpoint_and_no_more(unbroken, tmp_path, monkeypatch, capsys):
    save, tries = np.savez, []

    def full(file, **arrays):
        nonlocal tries
        tries += [file] if isinstance(file, Path) else []
        if isinstance(file, Path) and len(tries) in (3, 4):
            file.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(file, **arrays)

    names = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            names.append(sorted(path.name for path in (tmp_path / "run" / "last").glob("*.npz")))

    monkeypatch.setattr(np, "savez", full)
    result = training.train(config(tmp_path / "run"), callbacks=[Look()])
    said = "No checkpoint could be written (the disk is full). The training goes on, with the one before it."
    assert capsys.readouterr().out.count(said) == 1
    assert said in (tmp_path / "run" / "log.txt").read_text()
    assert names[2:6] == [["step-1.npz", "step-2.npz"]] * 3 + [["step-2.npz", "step-5.npz"]], names
    assert result.metrics["test_loss"] == unbroken.metrics["test_loss"]


@any_backend
def test_a_state_whose_weights_are_no_numbers_is_not_kept(tmp_path):
    class Poison(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 3:
                self.model.set_weights([np.full_like(weight, np.nan) for weight in self.model.get_weights()])

    with pytest.raises(TrainingStopped, match=r"the loss is nan from step 5 of epoch 1 on\.") as stopped:
        training.train(config(tmp_path / "run"), callbacks=[Poison()])
    # It would end so again.
    assert "--resume" not in str(stopped.value)
    assert sorted(path.name for path in (tmp_path / "run" / "last").glob("*.npz")) == ["step-2.npz", "step-3.npz"]
    assert "No checkpoint after step 4: " in (tmp_path / "run" / "log.txt").read_text()


@any_backend
def test_a_long_step_is_left_with_the_copy_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_residual.training.session._COPY_SECONDS", 0.0)
    monkeypatch.setattr("keras_residual.training.session._COPY_SHARE", 1e9)
    from keras_residual.training.stopped import leave

    said = []

    class Leave(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 5:  # as the thread does that ends a process whose step takes too long
                said.extend(leave("Ctrl-C"))
                raise RuntimeError("broken")

    with pytest.raises(TrainingStopped, match="broken"):
        training.train(config(tmp_path / "run", "save_every=60 min"), callbacks=[Leave()])
    assert said == [
        f"No epoch was finished. Kept in {tmp_path / 'run'}: config.toml, trained_on.npz, last, log.txt. "
        f"Saved after step 5. Go on with: keras-residual train --resume {tmp_path / 'run'}"
    ]
    assert training.prepare(resume=tmp_path / "run").step == 5


@any_backend
@pytest.mark.parametrize("text", ["", "5", "0 steps", "ten steps", "1e3 min", "5 minutes or so"])
def test_how_often_is_said_in_steps_or_minutes(text):
    rule = "a number of steps or of minutes such as '500 steps' or '5 minutes'"
    with pytest.raises(ValueError, match=f"`save_every` must be {rule}, but received '{text}'"):
        TrainConfig.parse({"save_every": text})
    assert TrainConfig(save_every="1 step").checkpoint_every == (1, 0)
    assert TrainConfig(save_every="1.5min").checkpoint_every == (None, 90)
