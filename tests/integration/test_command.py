"""The command from end to end, as another process: train, evaluate, predict; standard output, standard error, files."""

import csv
import json
import re

import keras
import numpy as np
import pytest
from PIL import Image

from cli.command import fingerprint, run, said
from keras_residual_cli import app


@pytest.fixture
def shapes(tmp_path):
    """Bright squares in the upper or the lower half, in two folders."""
    rng = np.random.default_rng(0)
    for name, top in (("upper", 0), ("lower", 4)):
        for index in range(20):
            pixels = rng.integers(0, 60, (8, 8), np.uint8)
            pixels[top : top + 4, 2:6] += 150
            path = tmp_path / "shapes" / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return tmp_path / "shapes"


def test_train_then_evaluate_then_predict(shapes, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = fingerprint(shapes)
    done = run(
        *("train", "shapes", "--epochs", "12", "--seed", "7", "--json"),
        *("--set", "batch_size=4", "--set", "data.validation_fraction=0.25"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)
    assert metrics["run_directory"] == "runs/shapes-1"
    assert metrics["backend"] == keras.backend.backend()
    assert metrics["test_accuracy"] >= 0.75
    # Every word on standard error is ours: no framework says anything.
    number = r"\d+\.\d+"
    patterns = [
        r"Training small_resnet on shapes: 24 examples to learn from, 8 to choose the best of 12 epochs, 8 to test",
        r"Found 40 pictures of 2 classes, 8×8 pixels: lower 20, upper 20\.",
        r"Validation: drawn by seed from what is learned from\. Test: drawn by seed 7, 0\.2 of each class\.",
        r"Pictures are read at 8×8 in gr[ea]y: the size that all of them have; --image-size N for another\.",
        r"Held in memory: 2\.5 KiB\.",
        *[
            rf"epoch {epoch}/12  loss {number}  val_loss {number}  accuracy {number} %  val_accuracy {number} %"
            for epoch in range(1, 13)
        ],
        rf"Test accuracy {number} % \(always the commonest class: {number} %\) on 8 examples, epoch \d+",
        rf"Took {number} s from start to report, {number} s of them training( \({number} s compiling\))?\. "
        r"Report: runs/shapes-1/report\.html",
    ]
    lines = said(done)
    assert len(lines) == len(patterns), done.stderr
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line)
    took, training = map(float, re.findall(r"([\d.]+) s (?:from|of)", lines[-1]))
    assert took > training  # the command has read the data and built the network before
    assert "Backend: " + keras.backend.backend() in done.stderr

    assert app.run(["evaluate", "runs/shapes-1", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    scores = [f"test_{name}" for name in ("loss", "accuracy", "majority", "precision", "recall", "auc")]
    assert list(found) == [*scores, "examples", "notes"]
    assert found["test_loss"] == pytest.approx(metrics["test_loss"], rel=1e-5)
    assert (found["test_accuracy"], found["examples"]) == (metrics["test_accuracy"], 8)

    assert app.run(["predict", "runs/shapes-1", "shapes/upper", "shapes/lower/3.png", "--csv", "answers.csv"]) == 0
    assert capfd.readouterr().out == "Wrote 21 answers to answers.csv\n"
    rows = list(csv.DictReader((tmp_path / "answers.csv").read_text().splitlines()))
    assert [row["file"] for row in rows] == [f"shapes/upper/{index}.png" for index in range(20)] + [
        "shapes/lower/3.png"
    ]
    assert {row["class"] for row in rows} <= {"upper", "lower"}
    assert all(0.5 <= float(row["probability"]) <= 1 for row in rows)

    assert app.run(["predict", "runs/shapes-1/model.keras", "shapes/upper/0.png"]) == 0
    header, row = capfd.readouterr().out.splitlines()
    assert header.split() == ["file", "class", "probability"]
    assert row.split()[:2] == [rows[0]["file"], rows[0]["class"]]
    assert fingerprint(shapes) == before


@pytest.mark.any_backend
def test_a_table_with_numbers_to_predict(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2))
    rows = [f"{a:.4f},{b:.4f},{3 * a - b + 10:.4f}" for a, b in x]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,price", *rows]) + "\n")
    assert app.run(["train", "t.csv", "--target", "price", "--epochs", "3", "--out", "run", "--json"]) == 0
    metrics = json.loads(capfd.readouterr().out)
    assert {"test_loss", "test_rmse", "test_r2"} <= set(metrics)
    assert app.run(["evaluate", "run", "t.csv", "--json"]) == 0
    found = list(json.loads(capfd.readouterr().out))
    assert found == ["test_loss", "test_rmse", "test_mae", "test_r2", "examples", "notes"]
    (tmp_path / "new.csv").write_text("b,a\n0.5,1\n-1,0\n")
    assert app.run(["predict", "run", "new.csv", "--json"]) == 0
    predictions = json.loads(capfd.readouterr().out)["predictions"]
    assert [row["file"] for row in predictions] == ["new.csv:1", "new.csv:2"]
    assert all(isinstance(row["value"], float) for row in predictions)
    assert app.run(["predict", "run/model.keras", "t.png"]) == 2
    assert capfd.readouterr().err.splitlines() == ["keras-residual: Inputs 't.png': there is no such file or folder."]
