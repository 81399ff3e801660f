"""`keras-residual xray`: the table and the advice of a saved model, in words and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from keras_residual_cli.app import run


@pytest.fixture
def model(tmp_path: Path) -> str:
    """Returns the file of a net of 16 layers whose gradient vanishes."""
    small = keras.initializers.RandomNormal(stddev=0.02, seed=0)
    blocks = [layers.Dense(16, "relu", kernel_initializer=small, name=f"dense{i}") for i in range(16)]
    net = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), *blocks, layers.Dense(10, name="head")])
    net.save(tmp_path / "plain.keras")
    return str(tmp_path / "plain.keras")


def test_it_shows_a_row_a_layer_and_what_to_change(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["xray", model, "--data", "digits", "--suggest"]) == 0
    told = capsys.readouterr().out
    assert all(f"dense{i}" in told for i in range(16))
    assert "kr.residualize(model)" in told.replace("\n", " ")
    assert "dense2 → " in told or "dense1, dense2" in told


def test_json_has_blocks_model_and_advice(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["xray", model, "--data", "digits", "--suggest", "--json"]) == 0
    (line,) = capfd.readouterr().out.splitlines()
    found = json.loads(line)
    assert set(found) == {"blocks", "model", "advice", "suggested"}
    gradients = [block["gradient_norm"] for block in found["blocks"]]
    assert np.log10(gradients[-1] / gradients[0]) > 3
    assert found["advice"]


@pytest.mark.any_backend
def test_a_model_that_is_no_runs_needs_data(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["xray", model]) == 2
    assert "Name the data" in capsys.readouterr().err


def test_quantities_on_request_are_measured_once_their_cost_is_said(
    model: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["xray", model, "--data", "digits", "--quantities", "cka, loss_slice", "--json"]) == 0
    said = capfd.readouterr()
    assert "loss_slice: 51 forward" in said.err
    found = json.loads(said.out)["model"]
    assert len(found["cka"]) == 17
    assert found["loss_slice"]["loss"][25] == pytest.approx(found["loss"], rel=1e-3)


def test_a_quantity_that_there_is_not_is_a_wrong_call(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["xray", model, "--data", "digits", "--quantities", "lesions"]) == 2
    assert "Did you mean 'lesion'?" in capsys.readouterr().err


def test_it_writes_a_page_and_never_over_a_file(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert run(["xray", model, "--data", "digits", "--examples", "16", "--html", str(page)]) == 0
    assert f"Wrote {page}" in capsys.readouterr().out.replace("\n", "")
    assert "dense15" in page.read_text(encoding="utf-8")

    page.write_text("mine", encoding="utf-8")
    assert run(["xray", model, "--data", "digits", "--html", str(page)]) == 2
    assert "is there already and is not overwritten" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == "mine"
    assert run(["xray", model, "--data", "digits", "--html", str(tmp_path / "none" / "page.html")]) == 2
    assert "There is no folder" in capsys.readouterr().err


def rules_found(file: Path, capfd: pytest.CaptureFixture[str]) -> tuple[set[str], dict[str, Any]]:
    assert run(["xray", str(file), "--data", "digits", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    return {advice["rule"] for advice in found["advice"]}, found["model"]["ending"]


@pytest.mark.parametrize(
    ("end", "loss", "takes", "rule"),
    [
        ("softmax", "sparse_categorical_crossentropy", "probabilities", None),
        ("softmax", "categorical_crossentropy", "probabilities", None),
        ("softmax", None, "probabilities", None),
        ("softmax", "mse", "probabilities", None),
        ("softmax", keras.losses.SparseCategoricalCrossentropy(from_logits=True), "logits", "softmax_twice"),
        (None, keras.losses.CategoricalCrossentropy(from_logits=True), "logits", None),
        (None, None, "logits", None),
        (None, "sparse_categorical_crossentropy", "probabilities", "softmax_missing"),
    ],
)
def test_the_loss_is_that_of_the_file_or_suits_what_the_model_gives(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], end: str | None, loss: Any, takes: str, rule: str | None
) -> None:
    net = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10, end)])
    if loss is not None:
        net.compile("sgd", loss)
    net.save(tmp_path / "net.keras")
    rules, ending = rules_found(tmp_path / "net.keras", capfd)
    assert ending["loss_takes"] == takes
    assert rules & {"softmax_twice", "softmax_missing"} == ({rule} if rule else set())
