"""`keras-residual residualize`: a file beside the old one, what was done in words, and refusals in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from cli.command import fingerprint
from keras_residual.residual.residual import Residual
from keras_residual_cli.app import run
from surgery.plain_nets import dense_net, inputs_for


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    model = dense_net()
    model.compile("adam", "mse")
    model.train_on_batch(np.ones((2, 4)), np.ones((2, 3)))
    model.save("plain.keras")
    return tmp_path


def test_it_writes_the_model_and_says_what_it_did(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = fingerprint(folder)
    assert run(["residualize", "plain.keras", "new.keras"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2 shortcuts:",
        "  dense1_residual: dense1, dense2 → relu; identity, 6",
        "  dense3_residual: dense3, dense4 → relu; identity, 6",
        "left alone:",
        "  stem: the first layer",
        "  head: the last layer",
        "221 weights, 2 of them new. The outputs are unchanged until training.",
        "Wrote new.keras",
    ]
    after = fingerprint(folder)
    assert after.pop("new.keras")
    assert after == before
    plain: Any = keras.saving.load_model("plain.keras")
    model: Any = keras.saving.load_model("new.keras")
    x = inputs_for(plain)
    np.testing.assert_allclose(model.predict(x, verbose=0), plain.predict(x, verbose=0), atol=1e-6)
    assert model.compiled


def test_json_and_options(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["residualize", "plain.keras", "new.keras", "--every", "1", "--start", "identity", "--json"]) == 0
    (line,) = capfd.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["written"] == "new.keras"
    assert [group["layers"] for group in found["groups"]] == [["dense1"], ["dense2"], ["dense3"], ["dense4"]]
    assert found["left_alone"] == {"stem": "the first layer", "head": "the last layer"}
    model: Any = keras.saving.load_model("new.keras")
    assert [c.branch_scale_layer.name for c in model.layers if isinstance(c, Residual)] == ["branch_scale"] * 4


@pytest.mark.any_backend
def test_a_dry_run_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = fingerprint(folder)
    assert run(["residualize", "plain.keras", "new.keras", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("2 shortcuts:")
    assert fingerprint(folder) == before


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("call", "line"),
    [
        (("no.keras", "new.keras"), "There is no model 'no.keras'."),
        (("plain.keras", "plain.keras"), "plain.keras is there already and is not overwritten. Choose another name."),
        (("plain.keras", "new.h5"), "new.h5 must end in .keras, the format of Keras."),
        (("plain.keras", "no/new.keras"), "There is no folder no to write new.keras to."),
        (
            ("plain.keras", "new.keras", "--start", "same"),
            "residualize: unknown name for `start`: 'same'. Known: unchanged, identity.",
        ),
        (
            ("plain.keras", "new.keras", "--every", "0"),
            "suggest_groups: `every` must be a whole number of at least 1, but received 0 (int).",
        ),
    ],
)
def test_a_wrong_call(call: Any, line: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = fingerprint(folder)
    assert run(["residualize", *call]) == 2
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [f"keras-residual: {line}"]
    assert shown.out == ""
    assert fingerprint(folder) == before


@pytest.mark.any_backend
def test_a_file_that_is_no_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "notes.keras").write_text("no model")
    assert run(["residualize", "notes.keras", "new.keras"]) == 2
    assert capsys.readouterr().err.startswith("keras-residual: notes.keras cannot be read as a Keras model: ")
