"""`export` and `benchmark` as commands, and exported files where `evaluate` and `predict` take a model."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import sys

import keras
import numpy as np
import pytest

from deploy.nets import made
from keras_residual.deploy.formats import FORMATS
from keras_residual.deploy.measure import Cost, Speed
from keras_residual.training import benchmark as measuring
from keras_residual.training.saved import load_saved, raw_outputs
from keras_residual_cli import app, benchmark
from keras_residual_cli.output import Words

pytestmark = pytest.mark.any_backend

COST = Cost(0.1, None, (Speed(1, 2.0, 500.0), Speed(32, 4.0, 8000.0)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run of a table and an ONNX file of it, which lies elsewhere."""
    folder = tmp_path_factory.mktemp("wine")
    arguments = ["train", "wine", "--epochs", "2", "--out", str(folder / "run"), "--set", "xray=false"]
    assert app.run(arguments) == 0
    (folder / "elsewhere").mkdir()
    assert app.run(["export", str(folder / "run"), str(folder / "elsewhere" / "net.onnx")]) == 0
    return folder


def said(capfd):
    return capfd.readouterr().err.splitlines()[-1]


def as_json(capfd, *arguments):
    capfd.readouterr()
    assert app.run([*map(str, arguments), "--json"]) == 0
    return json.loads(capfd.readouterr().out)


def test_an_exported_file_beside_the_run_is_evaluated_as_the_run_is(trained, capfd):
    expected = as_json(capfd, "evaluate", trained / "run")
    shutil.copy(trained / "elsewhere" / "net.onnx", trained / "run" / "net.onnx")
    found = as_json(capfd, "evaluate", trained / "run" / "net.onnx")
    assert found["notes"] == expected["notes"]
    assert {**found, "notes": 0} == pytest.approx({**expected, "notes": 0}, rel=1e-4)


def test_one_elsewhere_knows_its_classes_and_columns(trained, tmp_path, capfd):
    file, run = trained / "elsewhere" / "net.onnx", trained / "run"
    saved, original = load_saved(file, exported=True), load_saved(run)
    assert (saved.classes, saved.data.features) == (original.classes, original.data.features)
    found = as_json(capfd, "evaluate", file, "wine")
    assert found["examples"] == 178
    header = ",".join(saved.data.features)
    rows = np.random.default_rng(0).uniform(1, 3, (5, len(saved.data.features)))
    np.savetxt(tmp_path / "new.csv", rows, delimiter=",", header=header, comments="")
    answers = [as_json(capfd, "predict", model, tmp_path / "new.csv")["predictions"] for model in (run, file)]
    assert [answer["class"] for answer in answers[0]] == [answer["class"] for answer in answers[1]]
    ours, theirs = ([answer["probability"] for answer in each] for each in answers)
    assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
def test_what_the_outputs_are_goes_with_the_file(activation, tmp_path):
    net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1 if activation == "sigmoid" else 2, activation)])
    net.save(tmp_path / "net.keras")
    assert app.run(["export", str(tmp_path / "net.keras"), str(tmp_path / "net.onnx")]) == 0
    saved = load_saved(tmp_path / "net.onnx", exported=True)
    assert saved.model.ending == (activation or "logits")
    x = np.random.default_rng(0).normal(size=(300, 3))
    np.testing.assert_allclose(raw_outputs(saved.model, x), raw_outputs(net, x.astype("float32")), rtol=1e-4, atol=1e-6)


def test_a_model_of_any_kind_is_exported(tmp_path, capfd):
    made("two of each").save(tmp_path / "net.keras")
    found = as_json(capfd, "export", tmp_path / "net.keras", tmp_path / "net.pt2")
    assert (found["format"], found["agreement"]) == ("pt2", None)
    assert app.run(["predict", str(tmp_path / "net.pt2"), "x.png"]) == 2
    assert "the model must take pictures" in said(capfd)


@pytest.mark.slow
def test_int8_is_calibrated_on_the_data_of_the_run(trained, tmp_path, capfd):
    found = as_json(capfd, "export", trained / "run", tmp_path / "net.onnx", "--int8", "--agreement", "0.5")
    assert 0.5 <= found["agreement"] <= 1
    found = as_json(
        capfd, "export", trained / "run", tmp_path / "net.onnx", "--int8", "--calibrate", "wine", "--overwrite",
        "--agreement", "0.5",
    )  # fmt: skip
    assert found["agreement"] >= 0.5


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["net.h5"], "export: `path` must be a path that ends in .onnx"),
        (["net.onnx", "--format", "onx"], "Did you mean 'onnx'?"),
        (["net.pt2", "--int8"], "`int8` must be None where the format is neither 'onnx' nor 'openvino'"),
        (["net.onnx", "--calibrate", "wine"], "--calibrate is for --int8. Add --int8, or leave it out."),
        (
            ["net.onnx", "--int8", "--calibrate", "digits"],
            "Data 'digits': the data is pictures, and the model takes a table of 13 columns.",
        ),
        (["net.onnx", "--preprocessing", "resnet50.a1_in1k"], "`preprocessing` must be None for a model that"),
        (["net.onnx", "--preprocessing", "nope"], "unknown name for `name`: 'nope'."),
        (["mine.onnx"], "mine.onnx' exists. Choose another path, or replace it with overwrite=True"),
    ],
)
def test_calls_that_are_wrong(arguments, line, trained, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.onnx").write_text("mine")
    assert app.run(["export", str(trained / "run"), *arguments]) == 2
    assert line in said(capfd)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.onnx"]
    assert (tmp_path / "mine.onnx").read_text() == "mine"


def test_a_model_that_is_no_runs_needs_data_to_calibrate_on(tmp_path, capfd):
    made("residual").save(tmp_path / "net.keras")
    assert app.run(["export", str(tmp_path / "net.keras"), str(tmp_path / "net.onnx"), "--int8"]) == 2
    assert said(capfd).endswith("does not say what it was trained on. Name data to calibrate on: --calibrate DATA.")
    arguments = [str(tmp_path / "net.keras"), str(tmp_path / "net.onnx"), "--int8", "--calibrate", "wine"]
    assert app.run(["export", *arguments]) == 2
    assert said(capfd).endswith("The model takes inputs (6,), but wine has inputs (13,).")


def test_an_export_that_fails_is_one_line_and_status_1(trained, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("keras_residual.deploy.export.BOUNDS", {"float32": 0.0})
    assert app.run(["export", str(trained / "run"), str(tmp_path / "net.onnx")]) == 1
    assert said(capfd).startswith("keras-residual: The onnx file answers otherwise than the model: largest difference")
    assert list(tmp_path.iterdir()) == []


class TestBenchmark:
    @pytest.mark.slow
    def test_a_row_a_format(self, trained, tmp_path, capfd):
        files = ["--out", str(tmp_path / "b.json"), "--picture", str(tmp_path / "b.png")]
        quick = ["--formats", "onnx", "--seconds", "0", "--batch-sizes", "1,3"]
        found = as_json(capfd, "benchmark", trained / "run", *quick, *files)
        assert found == json.loads((tmp_path / "b.json").read_text())
        assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
        keras_row, onnx = found["formats"]
        assert (keras_row["format"], onnx["format"]) == ("keras", "onnx")
        for row in found["formats"]:
            assert row["agreement"] == 1
            assert row["bytes"] > 4000
            assert row["cost"]["megabytes"] > 0
            assert [speed["batch_size"] for speed in row["cost"]["speeds"]] == [1, 3]
            assert all(speed["milliseconds"] > 0 for speed in row["cost"]["speeds"])
            assert row["scores"]["test_accuracy"] == keras_row["scores"]["test_accuracy"]

    def test_a_format_that_fails_has_its_reason_in_the_table(self, trained, capfd, monkeypatch):
        monkeypatch.setattr("keras_residual.deploy.export.BOUNDS", {"float32": 0.0})
        monkeypatch.setattr(measuring, "measure", lambda *_, **__: COST)
        assert app.run(["benchmark", str(trained / "run"), "--formats", "pt2, onnx"]) == 0
        lines = capfd.readouterr().out.splitlines()
        speeds = "2.00 ms at 1, 4.00 ms at 32"
        assert lines[:3] == [f"keras: {speeds}", "onnx: not to be had", f"pt2: {speeds}"]
        assert lines[3].split()[:4] == ["format", "MB", "load", "s"]
        assert lines[4].startswith("keras ")
        assert lines[5].startswith("pt2 ")  # the very program of the model, to the last bit
        assert lines[6].startswith("onnx: The onnx file answers otherwise than the model: largest difference ")

    def test_a_terminal_has_a_bar(self, trained, monkeypatch):
        file = io.StringIO()
        words = Words(file=file, force_terminal=True, width=80, color_system=None, legacy_windows=False)
        monkeypatch.setattr(benchmark, "output", lambda as_json: contextlib.nullcontext(words))
        rows = [measuring.Row("keras", 1000, COST, 1.0), measuring.Row("onnx", reason="It is Monday.")]
        monkeypatch.setattr(measuring, "benchmark", lambda *_, **__: iter(rows))
        assert app.run(["benchmark", str(trained / "run"), "--formats", "onnx"]) == 0
        bar, _, table = file.getvalue().rpartition("\x1b[2K")
        assert re.search(r"keras .* 0%", bar)
        assert re.search(r"━+ 100%", bar)
        assert "ms at 1," not in file.getvalue()
        assert [line.split()[0] for line in table.splitlines()] == ["format", "keras", "onnx:"]

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (["--formats", "onx"], "benchmark: unknown name for `format`: 'onx'. Did you mean 'onnx'?"),
            (["--batch-sizes", "1,x"], "--batch-sizes must be numbers such as 1,32 up to 4096, but received '1,x'."),
            (["--out", "nowhere/b.json"], "There is no folder nowhere to write b.json to."),
        ],
    )
    def test_calls_that_are_wrong(self, arguments, line, trained, tmp_path, monkeypatch, capfd):
        monkeypatch.chdir(tmp_path)
        assert app.run(["benchmark", str(trained / "run"), *arguments]) == 2
        assert line in said(capfd)

    def test_formats_that_can_be_had_here(self, monkeypatch):
        assert measuring.formats_of(["pt2", "onnx"]) == ("onnx", "pt2")
        monkeypatch.setitem(sys.modules, "openvino", None)
        assert measuring.formats_of([]) == tuple(name for name in FORMATS if name != "openvino")
        with pytest.raises(ImportError, match="'openvino' is not installed"):
            measuring.formats_of(["openvino"])
