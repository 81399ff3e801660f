"""evaluate and predict as commands: what is said beside the numbers, and answers that no spreadsheet computes."""

import csv
import io
import json
import re
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
    assert "Left out of the test: 20 of 24 examples, which the training part has too." in lines


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


@pytest.fixture(scope="module")
def of_numbers(tmp_path_factory):
    """Returns a function that trains on a table with a number in the column of that name, and its folder."""
    folder = tmp_path_factory.mktemp("numbers")
    (folder / "new.csv").write_text("a\n1\n2\n")

    def train(number, target):
        text = io.StringIO()
        csv.writer(text).writerows([["a", target], *([row, 100 * row + 0.5] for row in range(40))])
        (folder / f"{number}.csv").write_text(text.getvalue())
        data = [str(folder / f"{number}.csv"), "--target", target, "--out", str(folder / str(number))]
        assert app.run(["train", *data, "--epochs", "1", "--set", "xray=false"]) == 0
        return folder / str(number)

    return train, folder


@pytest.mark.parametrize(
    ("number", "target", "shown", "written"),
    [
        (1, "price", "price", "price"),
        (2, "=1+1", "=1+1", "'=1+1"),
        (3, "File", "value", "value"),
        (4, "[b]two\nlines", r"[b]two\nlines", r"[b]two\nlines"),
    ],
)
def test_answers_that_are_numbers_stand_below_the_name_of_the_target(
    of_numbers, tmp_path, capfd, number, target, shown, written
):
    train, folder = of_numbers
    run, new, file = str(train(number, target)), str(folder / "new.csv"), tmp_path / "answers.csv"
    capfd.readouterr()
    assert app.run(["predict", run, new]) == 0
    assert capfd.readouterr().out.splitlines()[0].split() == ["file", *shown.split()]
    assert app.run(["predict", run, new, "--csv", str(file)]) == 0
    assert next(csv.reader(file.read_text().splitlines())) == ["file", written]
    capfd.readouterr()
    assert app.run(["predict", run, new, "--json"]) == 0
    assert list(json.loads(capfd.readouterr().out)["predictions"][0]) == ["file", "value"]


def test_a_set_whose_target_has_no_name_has_values(tmp_path, capfd):
    assert app.run(["train", "diabetes", "--epochs", "1", "--out", str(tmp_path / "run"), "--set", "xray=false"]) == 0
    (tmp_path / "new.csv").write_text("age,sex,bmi,bp,s1,s2,s3,s4,s5,s6\n" + ",".join("0" * 10) + "\n")
    capfd.readouterr()
    assert app.run(["predict", str(tmp_path / "run"), str(tmp_path / "new.csv")]) == 0
    assert capfd.readouterr().out.splitlines()[0].split() == ["file", "value"]


def test_errors_of_numbers_say_their_unit(of_numbers, capfd):
    train, _ = of_numbers
    capfd.readouterr()
    run = train(5, "price")
    lines = capfd.readouterr().out.splitlines()
    assert lines[1] == "The loss is the mean squared error, in the square of the target's unit."
    assert re.fullmatch(
        r"Test R² [-\d.]+, root mean square error [\d.e+]+ in the target's unit on 8 examples, epoch 1", lines[-2]
    )
    assert app.run(["evaluate", str(run)]) == 0
    lines = capfd.readouterr().out.splitlines()[-5:]
    assert re.fullmatch(r"Mean squared error     [\d.]+ in the square of the target's unit", lines[0])
    assert re.fullmatch(r"Root mean square error [\d.]+ in the target's unit", lines[1])
    assert re.fullmatch(r"Mean absolute error    [\d.]+ in the target's unit", lines[2])
    assert [line.split()[0] for line in lines[3:]] == ["R²", "Examples"]


def test_a_model_of_a_table_says_so_of_pictures(of_numbers, capfd):
    train, _ = of_numbers
    run = str(train(6, "price"))
    for call in (["evaluate", run, "digits"], ["xray", run, "--data", "digits"]):
        capfd.readouterr()
        assert app.run(call) == 2
        assert capfd.readouterr().err == (
            "keras-residual: Data 'digits': the data is pictures, and the model takes a table of 1 column.\n"
        )


def test_classes_are_answered_as_the_file_spells_them(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("x,y\n" + "1,007\n-1,01\n" * 20)
    assert app.run(["train", "t.csv", "--target", "y", "--epochs", "1", "--out", "run"]) == 0
    assert app.run(["evaluate", "run", "--json"]) == 0
    assert '<th scope="row">007</th>' in (tmp_path / "run" / "report.html").read_text()
    capfd.readouterr()
    assert app.run(["predict", "run", "t.csv", "--json"]) == 0
    assert {row["class"] for row in json.loads(capfd.readouterr().out)["predictions"]} <= {"01", "007"}
    # A run from before, which knows its classes by their numbers, and its configuration by nothing.
    config, record = tmp_path / "run" / "config.toml", tmp_path / "run" / "trained_on.npz"
    arrays = {name: array for name, array in np.load(record).items() if name != "run"}
    np.savez(record, **arrays)
    config.write_text(config.read_text().replace('"01"', '"1"').replace('"007"', '"7"'))
    assert '"7"' in config.read_text()
    assert app.run(["evaluate", "run", "--json"]) == 0


def test_a_target_that_does_not_vary_is_said_and_has_no_r2(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("a,y\n" + "".join(f"{row}.25,2.5\n" for row in range(40)))
    (tmp_path / "one.csv").write_text("a,y\n9.75,3.5\n")
    arguments = ["--target", "y", "--epochs", "1", "--out", "run", "--set", "xray=false"]
    assert app.run(["train", "t.csv", *arguments]) == 0
    lines = capfd.readouterr().out.splitlines()
    train = "The target is 2.5 in every training example, so there is nothing to learn"
    test = "2.5 in every test example, so R² is not defined."
    assert f"{train}, and {test}" in lines
    assert re.fullmatch(r"Test root mean square error [\d.e+-]+ in the target's unit on 8 examples, epoch 1", lines[-2])
    assert "test_r2" not in json.loads((tmp_path / "run" / "metrics.json").read_text())
    report = (tmp_path / "run" / "report.html").read_text()
    assert "R² =" not in report
    assert "there is no R²" in report
    for data, note in (([], f"The target is {test}"), (["one.csv"], "R² is not defined for a single test example.")):
        assert app.run(["evaluate", "run", *data]) == 0
        lines = capfd.readouterr().out.splitlines()
        assert note in lines
        assert [line.split()[0] for line in lines[-4:]] == ["Mean", "Root", "Mean", "Examples"]
        assert app.run(["evaluate", "run", *data, "--json"]) == 0
        assert "test_r2" not in json.loads(capfd.readouterr().out)
