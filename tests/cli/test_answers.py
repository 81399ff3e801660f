"""evaluate and predict as commands: what is said beside the numbers, and answers that no spreadsheet computes."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from keras_residual_cli import app

pytestmark = pytest.mark.any_backend

LEFT_OUT = "Left out of the test: 16 of 20 examples; the model was trained on 14 of them, and 2 chose its best epoch."


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pets")
    for number in range(20):
        path = folder / "pets" / ("=1+1", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)).save(path)
    arguments = ["train", str(folder / "pets"), "--epochs", "1", "--out", str(folder / "run"), "--set", "xray=false"]
    assert app.run(arguments) == 0
    return folder


def test_what_was_trained_on_is_left_out_and_said(trained, monkeypatch, capfd):
    monkeypatch.chdir(trained)
    for data in ([], ["pets"], ["./pets"], [str(trained / "pets")]):
        assert app.run(["evaluate", "run", *data, "--json"]) == 0
        shown = capfd.readouterr()
        found = json.loads(shown.out)
        assert (found["examples"], found["notes"]) == (4, [LEFT_OUT])
        assert LEFT_OUT in shown.err.splitlines()
    assert app.run(["evaluate", "run"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == LEFT_OUT
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "Test loss", "Test accuracy", "Always the commonest", "Mean precision", "Mean recall", "Area under the ROC",
        "Examples",
    ]  # fmt: skip
    # As training says it: shares in percent, and fractions in JSON alone.
    shown = {line[:22].strip(): line[22:].strip() for line in lines[1:]}
    for key in ("accuracy", "precision", "recall", "majority"):
        name = {"majority": "Always the commonest", "accuracy": "Test accuracy"}.get(key, f"Mean {key}")
        assert shown[name] == f"{100 * found[f'test_{key}']:.2f} %"
    assert shown["Examples"] == "4"


def test_no_answer_begins_as_a_formula_does(trained, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    names = ["=1+1.png", "+1.png", "@SUM(A1).png", "plain.png"]
    for name, source in zip(names, sorted((trained / "pets" / "=1+1").iterdir()), strict=False):
        shutil.copy(source, tmp_path / name)
    assert app.run(["predict", str(trained / "run"), *names, "--csv", "answers.csv"]) == 0
    rows = list(csv.DictReader((tmp_path / "answers.csv").read_text().splitlines()))
    assert [row["file"] for row in rows] == ["'=1+1.png", "'+1.png", "'@SUM(A1).png", "plain.png"]
    assert {row["class"] for row in rows} <= {"'=1+1", "dog"}
    assert all(0 <= float(row["probability"]) <= 1 for row in rows)
    capfd.readouterr()
    assert app.run(["predict", str(trained / "run"), *names, "--json"]) == 0
    answers = json.loads(capfd.readouterr().out)["predictions"]
    assert [answer["file"] for answer in answers] == names


def test_equal_files_in_both_parts_are_said_while_training(trained, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for part in ("train", "test"):
        shutil.copytree(trained / "pets", tmp_path / "own" / part)
    for number in range(20, 24):
        path = tmp_path / "own" / "test" / ("=1+1", "dog")[number % 2] / f"{number}.png"
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)).save(path)
    assert app.run(["train", "own", "--epochs", "1", "--set", "xray=false"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].endswith("4 to test")
    assert lines[1] == "Left out of the test: 20 of 24 examples, which the training part has too."


def test_a_pipe_is_no_picture(trained, tmp_path, monkeypatch, capfd):
    import os

    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.png")
    assert app.run(["predict", str(trained / "run"), "pipe.png"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line == ("keras-residual: Inputs 'pipe.png': pipe.png is no file but a pipe or a device. Name a file.")


def test_a_name_that_is_not_utf8_is_shown_with_escapes(trained, tmp_path, monkeypatch, capfd):
    import os

    monkeypatch.chdir(tmp_path)
    source = next((trained / "pets" / "dog").iterdir())
    shutil.copy(source, os.fsdecode(b"d\xf6g.png"))
    assert app.run(["predict", str(trained / "run"), ".", "--csv", "answers.csv"]) == 0
    (row,) = csv.DictReader((tmp_path / "answers.csv").read_text().splitlines())
    assert row["file"] == "d\\xf6g.png"
