"""The X-ray in a run's report: of the model that is kept, beside the untrained one; training does not notice."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from browser import opened
from keras_residual.training import look_through
from keras_residual.training import train as training
from keras_residual.training.config import TrainConfig
from keras_residual.training.run_directory import RunDirectory
from keras_residual.training.train import TrainResult

SETTINGS = ["data.source=wine", "epochs=3", "seed=3", "model.drop_path_rate=0.3", "optimizer.learning_rate=0.1"]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return run(tmp_path_factory.mktemp("runs") / "with")


def run(folder: Path, *settings: str) -> TrainResult:
    return training.train(TrainConfig(out=str(folder)).with_overrides([*SETTINGS, *settings]))


def shown(result: TrainResult) -> dict[str, Any] | None:
    """Returns the numbers of the X-ray in the report of a run."""
    text = (result.run_directory / "report.html").read_text(encoding="utf-8")
    found = re.findall(r'class="xray-data">(.*?)</script>', text)
    return json.loads(found[0]) if found else None


def looking(run: RunDirectory, *settings: str) -> look_through.LookThrough:
    prepared = training.prepare(TrainConfig().with_overrides([*SETTINGS, *settings]))
    found = training._look_through(run, prepared)
    assert found is not None
    return found


def stack_norm(model: Any, name: str) -> float:
    """Returns the norm of what is trained in a stack."""
    (stack,) = (layer for layer in model._flatten_layers() if layer.name == name)
    arrays = [np.asarray(keras.ops.convert_to_numpy(v.value), "float64") for v in stack.trainable_variables]
    return float(np.sqrt(sum(np.square(array).sum() for array in arrays)))


def test_the_report_shows_the_model_that_is_kept_beside_the_untrained_one(result: TrainResult) -> None:
    data = shown(result)
    assert data is not None
    assert data["earlier_name"] == "before training"
    assert all(name.startswith("blocks.") for name in data["names"])
    untrained = training.prepare(TrainConfig().with_overrides(SETTINGS)).assembled.raw
    for column, model in (("earlier", untrained), ("now", result.load_model())):
        whole = np.linalg.norm(data[column]["weight_norm"])
        np.testing.assert_allclose(whole, stack_norm(model, "blocks"), rtol=1e-3)
    changes = np.divide(data["now"]["weight_norm"], data["earlier"]["weight_norm"])
    assert np.abs(changes - 1).max() > 0.01, "too alike to tell which is which"


def test_the_training_is_the_same_without_it(result: TrainResult, tmp_path: Path) -> None:
    other = run(tmp_path / "without", "xray=false")
    assert [{**row, "seconds": 0} for row in result.history] == [{**row, "seconds": 0} for row in other.history]
    assert result.metrics["test_loss"] == other.metrics["test_loss"]
    assert shown(other) is None


@pytest.mark.any_backend
def test_it_takes_the_weights_that_it_is_told(tmp_path: Path) -> None:
    look = looking(RunDirectory(tmp_path))
    weights = [2 * weight for weight in look._assembled.raw.get_weights()]
    one, two = look.now(), look.now(weights)
    assert one is not None
    assert two is not None
    assert one.model["name"] == "tabular_resnet"
    ratios = [b["weight_norm"] / a["weight_norm"] for a, b in zip(one.blocks, two.blocks, strict=True)]
    np.testing.assert_allclose(ratios, 2, rtol=1e-5)


@pytest.mark.any_backend
def test_numbers_are_looked_through_in_units_of_their_deviation(tmp_path: Path) -> None:
    found = looking(RunDirectory(tmp_path), "data.source=diabetes").now()
    assert found is not None
    assert 0.1 < found.model["loss"] < 20  # and not in thousands, as the squares of the targets


@pytest.mark.any_backend
def test_a_network_that_cannot_be_looked_through_is_no_reason_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no such place")

    monkeypatch.setattr(look_through, "Xray", broken)
    assert looking(RunDirectory(tmp_path)).now() is None
    assert "The report has no X-ray: RuntimeError: no such place" in (tmp_path / "log.txt").read_text()


@pytest.mark.any_backend
def test_the_report_in_a_browser(browser: Any, result: TrainResult) -> None:
    with opened(browser, result.run_directory / "report.html") as page:
        page.locator("figure[data-picture=gradient_norm]").scroll_into_view_if_needed()
        page.wait_for_selector("figure[data-picture=gradient_norm][data-drawn]")
        closed = page.locator("figure[data-picture=branch_ratio]")
        assert not closed.is_visible()
        page.get_by_text("What does each block do?").click()
        closed.scroll_into_view_if_needed()
        page.wait_for_selector("figure[data-picture=branch_ratio][data-drawn]")
        page.locator(".block").nth(1).click()
        assert "Block 2 of" in page.locator(".details").inner_text()
        assert "before training" in page.locator(".details").inner_text()
