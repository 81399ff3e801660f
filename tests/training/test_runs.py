"""The runs of a folder: finished, unfinished and broken ones, sorted and compared."""

import json
import math

import pytest

from keras_residual.training.config import TrainConfig
from keras_residual.training.config_file import to_toml
from keras_residual.training.run_directory import RunDirectory
from keras_residual.training.runs import differences, list_runs
from keras_residual_cli.app import run

pytestmark = pytest.mark.any_backend


def make(folder, name, *settings, epochs=2, accuracy=None, done=True):
    path = folder / name
    path.mkdir(parents=True)
    written = RunDirectory(path)
    written.log("Training")
    config = TrainConfig().with_overrides(["epochs=2", f"out={path}", *settings])
    written.config.write_text(to_toml(config))
    if epochs:
        written.save_history([{"epoch": i + 1, "loss": 1.0, "val_loss": 0.5, "seconds": 1.0} for i in range(epochs)])
    if done:
        written.save_metrics({"data": "digits", "epochs": epochs, "test_accuracy": accuracy, "test_loss": 1.0})
    return path


@pytest.fixture
def folder(tmp_path):
    make(tmp_path, "a", "optimizer.learning_rate=0.1", accuracy=0.5)
    make(tmp_path, "within/b", "optimizer.learning_rate=0.2", accuracy=0.9)
    make(tmp_path, "half", epochs=1, done=False)
    make(tmp_path, "begun", epochs=0, done=False)
    (make(tmp_path, "broken", accuracy=0.7) / "metrics.json").write_text('{"epochs": ')
    (make(tmp_path, "unreadable", accuracy=0.7) / "config.toml").write_text("epochs = [")
    make(tmp_path, "nan", accuracy=math.nan)
    (tmp_path / "no_run").mkdir()
    return tmp_path


def test_each_run_is_shown_as_what_it_is(folder):
    found = {run.path.name: (run.state, run.epochs) for run in list_runs(folder)}
    assert found == {
        "a": ("finished", 2),
        "b": ("finished", 2),
        "half": ("unfinished", 1),
        "begun": ("unfinished", 0),
        "broken": ("broken", 0),
        "unreadable": ("broken", 0),
        "nan": ("finished", 2),
    }
    with RunDirectory(folder / "half").alone():
        assert {run.path.name: run.state for run in list_runs(folder)}["half"] == "running"


def test_they_are_sorted_the_best_first_and_those_without_a_number_last(folder):
    by_accuracy = [run.path.name for run in list_runs(folder, sort="test_accuracy")]
    assert by_accuracy[:2] == ["b", "a"]
    by_rate = [run.path.name for run in list_runs(folder, sort="optimizer.learning_rate")]
    assert by_rate[:2] == ["a", "b"]
    with pytest.raises(ValueError, match=r"No run has a number or setting 'accuracy'. Known: .*test_accuracy"):
        list_runs(folder, sort="accuracy")


def test_they_are_compared_by_what_differs(folder):
    found = differences(list_runs(folder))
    assert found[folder / "a"] == {"optimizer.learning_rate": 0.1}
    assert found[folder / "half"] == {"optimizer.learning_rate": "auto"}


def test_the_command_shows_them(folder, capfd):
    assert run(["runs", str(folder), "--sort", "test_accuracy"]) == 0
    told = capfd.readouterr().out
    assert "90.00 %" in told
    assert "optimizer.learning_rate=0.2" in told
    assert "metrics.json" in told
    assert run(["runs", str(folder), "--json"]) == 0
    content = json.loads(capfd.readouterr().out)
    assert len(content["runs"]) == 7
    assert run(["runs", str(folder / "nowhere")]) == 2
    assert "There is no folder" in capfd.readouterr().err
    assert run(["runs", str(folder / "no_run")]) == 0
    assert "There are no runs" in capfd.readouterr().out
