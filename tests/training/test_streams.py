"""Trainings whose data do not stay in memory: the same numbers, through interruptions and through files that go."""

import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

from keras_residual.data.lazy import LazyExamples
from keras_residual.deploy.measure import Cost
from keras_residual.training import benchmark as measuring
from keras_residual.training import finetune
from keras_residual.training import prepare as preparing
from keras_residual.training import train as training
from keras_residual.training.config import TrainConfig
from keras_residual.training.evaluate import evaluate, load_test_data
from keras_residual.training.saved import load_saved
from keras_residual.training.stopped import TrainingStopped


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Drawing the report takes as long as training."""
    monkeypatch.setattr(training, "write_report", lambda run, *_, **__: run.report.touch())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty noisy pictures of two classes, one file that is no picture, and one that is broken."""
    folder, rng = tmp_path_factory.mktemp("pets"), np.random.default_rng(0)
    for label, shade in (("cat", 60), ("dog", 180)):
        (folder / label).mkdir()
        for number in range(20):
            pixels = np.clip(rng.normal(shade, 30, (12, 10, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.jpg", quality=95)
    (folder / "cat" / "notes.txt").write_text("x")
    (folder / "cat" / "broken.jpg").write_bytes(b"x")
    return folder


def config(folder, out, *settings):
    base = [f"data.source={folder}", "data.image_size=8", "epochs=2", "batch_size=8", "xray=false", "augment.shift=1"]
    return TrainConfig(out=str(out)).with_overrides([*base, "augment.flip=true", "save_every=1 step", *settings])


def numbers(result):
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in result.history]
    tests = {key: value for key, value in result.metrics.items() if key.startswith("test")}
    return rows, tests, [weight.tobytes() for weight in result.load_model().get_weights()]


class Break(keras.callbacks.Callback):
    def __init__(self, step, then=lambda: None):
        super().__init__()
        self.step, self.then, self.seen = step, then, 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == self.step:
            self.then()
            raise RuntimeError("broken")


@pytest.mark.every
def test_a_streamed_run_is_that_of_arrays_and_goes_on_exactly(folder, tmp_path, monkeypatch):
    held = training.train(config(folder, tmp_path / "held"))
    with pytest.raises(TrainingStopped, match="broken"):
        training.train(config(folder, tmp_path / "run", "data.memory=0", "data.workers=3"), callbacks=[Break(5)])
    keras.utils.set_random_seed(99)
    prepared = training.prepare(
        config(folder, tmp_path / "run", "data.memory=0", "data.workers=1"), resume=tmp_path / "run"
    )
    result = training.train(prepared, callbacks=[Break(None)])
    assert numbers(result) == numbers(held)
    assert (tmp_path / "run" / "trained_on.npz").read_bytes() == (tmp_path / "held" / "trained_on.npz").read_bytes()
    log = (tmp_path / "run" / "log.txt").read_text()
    assert f"Ignored: {folder / 'cat' / 'notes.txt'} (not a picture in" in log
    assert f"Skipped: {folder / 'cat' / 'broken.jpg'} (not a picture in" in log
    saved = load_saved(tmp_path / "run")
    test = load_test_data(saved)
    assert isinstance(test.x_test, LazyExamples)
    assert evaluate(saved, test)["examples"] == 8
    monkeypatch.setattr(measuring, "measure", lambda *_, **__: Cost(0.0, None, ()))  # in a process of its own
    assert [row.scores for row in measuring.benchmark(saved, [], test)] == [evaluate(saved, test)]


@pytest.mark.any_backend
def test_files_that_go_while_it_trains_are_named_and_cost_only_themselves(folder, tmp_path):
    pets = shutil.copytree(folder, tmp_path / "pets")
    prepared = training.prepare(config(pets, tmp_path / "run", "data.memory=0", "epochs=3"))
    gone = []

    class Remove(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if not gone:
                gone.extend(sorted(pets.rglob("1?.jpg")))
                for path in gone:
                    path.unlink()

    result = training.train(prepared, callbacks=[Remove()])
    log = (tmp_path / "run" / "log.txt").read_text()
    assert len(gone) == 20
    assert all(f"Skipped: {path} (No such file or directory)" in log for path in gone)
    assert len(result.history) == 3
    assert np.isfinite(result.metrics["test_loss"])


@pytest.mark.any_backend
def test_more_that_go_than_may_end_the_run_with_what_it_has(folder, tmp_path):
    pets = shutil.copytree(folder, tmp_path / "pets")
    prepared = training.prepare(config(pets, tmp_path / "run", "data.memory=0", "data.most_broken=3", "epochs=3"))

    class Remove(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            shutil.rmtree(pets)

    with pytest.raises(TrainingStopped, match=r"files are not pictures that can be read, and 3 are passed over"):
        training.train(prepared, callbacks=[Remove()])
    assert (tmp_path / "run" / "model.keras").exists()


@pytest.mark.any_backend
def test_a_validation_folder_chooses_the_best_epoch(folder, tmp_path):
    for part in ("train", "val", "test"):
        shutil.copytree(folder, tmp_path / "pets" / part)
        for number, path in enumerate(sorted((tmp_path / "pets" / part).rglob("*.jpg"))):
            if number % 3 != ("train", "val", "test").index(part):
                path.unlink()
    prepared = training.prepare(config(tmp_path / "pets", tmp_path / "run", "batch_size=4"))
    counts = [len(list((tmp_path / "pets" / part).rglob("*[0-9].jpg"))) for part in ("train", "val", "test")]
    assert [len(prepared.learn), len(prepared.choose), len(prepared.dataset.y_test)] == counts
    assert any(note == "Validation: val/ of the data. Test: test/ of the data." for note in prepared.notes)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ([], "64×64: small, so that a first run is quick"),
        (["model.name=resnet18"], "224×224: the usual size of resnet18"),
        (["model.name=resnet18", "data.image_size=32"], "32×32: as asked."),
        (["model.name=resnet50.a1_in1k"], "235×235: what the weights resnet50.a1_in1k expect."),
        (["model.name=resnet50.a1_in1k", "data.image_size=32"], "32×32: as asked."),
        (["model.name=resnet18", "model.weights=w.safetensors"], "256×256: what the weights w.safetensors expect."),
    ],
)  # fmt: skip
def test_the_size_of_pictures_is_said_with_its_reason(tmp_path, monkeypatch, settings, why):
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(0, 256, (40 + number, 120, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / label / f"{number}.png")
    # Neither the weights nor the network are of any matter, and making it takes long.
    monkeypatch.setattr(finetune, "open_location", lambda place: SimpleNamespace(tensors={}, source=place, config=None))
    monkeypatch.setattr(preparing, "assemble", lambda *_, **__: SimpleNamespace(body=None))
    base = TrainConfig(out=str(tmp_path / "run")).with_overrides([f"data.source={tmp_path / 'set'}", *settings])
    said = [note.replace("; --image-size N for another.", "") for note in training.prepare(base).notes]
    assert f"Pictures are read at {why}" in said
