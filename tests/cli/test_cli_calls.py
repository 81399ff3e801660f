"""Calls that are wrong: exit status 2 and one line that says how to put it right. Nothing is written."""

from importlib.metadata import version

import pytest

from keras_residual_cli.app import run

pytestmark = pytest.mark.any_backend

WRONG = {
    ("train", "--epoch", "3"): (
        "keras-residual: No such option: --epoch (Possible options: --epochs) See: keras-residual train --help"
    ),
    ("trian",): "keras-residual: No such command 'trian'. Did you mean 'train'? See: keras-residual --help",
    ("predict",): "keras-residual: Missing argument 'RUN_OR_MODEL'. See: keras-residual predict --help",
    ("train", "--set", "optimizer.learnig_rate=3"): (
        "keras-residual: Unknown key 'learnig_rate' in [optimizer]. Did you mean 'learning_rate'?"
    ),
    ("train", "--epochs", "0"): (
        "keras-residual: TrainConfig: `epochs` must be greater than or equal to 1 or 'auto', but received 0 (int)."
    ),
    ("train", "--config", "no.toml"): "keras-residual: There is no configuration file 'no.toml'.",
    ("train", "--set", "batch_size=5000"): (
        "keras-residual: TrainConfig: `batch_size` must be at most the number of training examples, 1293, "
        "but received 5000 (int)."
    ),
    ("train", "--out", "mine"): (
        "keras-residual: The run directory 'mine' exists and is not empty. Choose another with --out DIR, "
        "or leave --out away for a fresh one under runs/."
    ),
    ("evaluate", "nothing"): "keras-residual: There is no run directory or model 'nothing'.",
    ("evaluate", "mine"): (
        "keras-residual: 'mine' holds no model.keras, so it is no run directory or its first epoch was not finished."
    ),
    ("predict", "mine", "a.png", "--csv", "mine/thesis.txt"): (
        "keras-residual: mine/thesis.txt is there already and is not overwritten. Choose another: --csv FILE"
    ),
    ("predict", "mine", "a.png", "--csv", "no/where.csv"): (
        "keras-residual: There is no folder no to write where.csv to."
    ),
}


@pytest.mark.parametrize("call", WRONG, ids=" ".join)
def test_a_wrong_call(call, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    thesis = tmp_path / "mine" / "thesis.txt"
    thesis.write_text("years of work")
    assert run(call) == 2
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [WRONG[call]]
    assert shown.out == ""
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [thesis]
    assert thesis.read_text() == "years of work"


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        (
            "smal_resnet",
            "keras-residual: create_model: unknown name for `name`: 'smal_resnet'. Did you mean 'small_resnet'?",
        ),
        ("series_resnet", "keras-residual: create_model: `input_shape` must be (time, channels) for 'series_resnet', "),
    ],
)
def test_a_model_that_is_not_there_or_does_not_fit(name, begins, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["train", "digits", "--model", name]) == 2
    assert capsys.readouterr().err.startswith(begins)
    assert list(tmp_path.iterdir()) == []


def test_without_arguments_the_help(capsys):
    assert run([]) == 2
    assert "Usage: keras-residual" in capsys.readouterr().out


def test_print_config_settles_every_setting_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["train", "wine", "--print-config", "--set", "optimizer.learning_rate=0.5"]) == 0
    (tmp_path / "again.toml").write_text(capsys.readouterr().out)
    assert '"auto"' not in (tmp_path / "again.toml").read_text()
    assert run(["train", "--config", "again.toml", "--print-config"]) == 0
    assert capsys.readouterr().out == (tmp_path / "again.toml").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["again.toml"]


def test_what_nobody_foresaw_is_one_line_and_a_file_with_the_traceback(monkeypatch, capsys, tmp_path):
    from keras_residual.training import train as training

    def broken(config):
        raise KeyError("oops")

    monkeypatch.setattr(training, "prepare", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run(["train"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    (log,) = tmp_path.iterdir()
    assert line == f"keras-residual: unexpected KeyError: 'oops'. The traceback is in {log}"
    assert "in broken" in log.read_text()


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"keras-residual {version('keras-residual')}\n"
