"""Every name of timm has as many weights as timm's network, and blueprints say what models are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import keras
import pytest
from keras.src.backend.common import global_state

import keras_residual as kr
from keras_residual.models.catalog import CATALOG, FAMILIES, usual_input
from keras_residual.models.costs import blueprint, costs

SHARED = Path(os.environ.get("KERAS_RESIDUAL_TEST_DATA", Path(__file__).parents[3] / "shared"))
FACTS = SHARED / "data" / "timm_resnets.json"
OF_TIMM = [
    name for family in ("resnet", "resnetv2", "resnest", "res2net", "sknet", "senet") for name in FAMILIES[family]
]


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    if not FACTS.is_file():
        pytest.skip(f"needs {FACTS}; KERAS_RESIDUAL_TEST_DATA names the folder that holds data/")
    return json.loads(FACTS.read_text(encoding="utf-8"))


@pytest.mark.any_backend
def test_the_catalogue_has_every_name_of_timm(facts: dict[str, Any]) -> None:
    assert sorted(facts) == sorted(OF_TIMM)


@pytest.mark.any_backend
@pytest.mark.parametrize("name", OF_TIMM)
def test_weights_are_as_many_as_in_timm(name: str, facts: dict[str, Any]) -> None:
    found = blueprint(name, (32, 32, 3), num_classes=facts[name]["num_classes"]).costs
    assert (found.params, found.statistics) == (facts[name]["params"], facts[name]["bn_stats"])


@pytest.mark.parametrize(
    "name", ["resnet18", "ecaresnet50d_pruned", "resnetv2_50d_gn", "cifar_resnet32", "resnet3d_18"]
)
def test_a_blueprint_is_that_of_the_model(name: str) -> None:
    shape, classes = usual_input(name)
    drawn = blueprint(name)
    model = kr.create_model(name, input_shape=shape, num_classes=classes, execution="unrolled")
    maps = kr.create_model(name, input_shape=shape, num_classes=classes, features_only=True).output
    assert drawn.costs == costs(model)
    assert dict(drawn.maps) == {stage: tuple(made.shape[1:]) for stage, made in maps.items() if stage != "stem"}


@pytest.mark.parametrize("name", ["series_resnet", "tabular_resnet", "small_resnet"])
def test_networks_that_are_not_on_large_pictures_have_blueprints_too(name: str) -> None:
    shape, classes = usual_input(name)
    assert blueprint(name).costs == costs(kr.create_model(name, input_shape=shape, num_classes=classes))


@pytest.mark.any_backend
def test_a_blueprint_leaves_nothing_behind_to_be_initialised() -> None:
    blueprint("resnet18")
    # Keras initialises what is in this list when the next scope ends.
    assert not global_state.get_global_attribute("uninitialized_variables")
    with keras.StatelessScope():
        kr.layers.SqueezeExcite().build((None, 4, 4, 8))
        waiting = list(global_state.get_global_attribute("uninitialized_variables"))
        blueprint("resnet18")
        assert global_state.get_global_attribute("uninitialized_variables") == waiting
    assert all(variable.numpy() is not None for variable in waiting)


def test_channels_first() -> None:
    last = blueprint("seresnet18")
    keras.config.set_image_data_format("channels_first")
    first = blueprint("seresnet18")
    assert first.costs == last.costs
    assert first.maps["stage4"] == (512, 7, 7)
    assert first.input_shape == (224, 224, 3)


@pytest.mark.any_backend
def test_every_name_has_a_usual_input() -> None:
    for name in CATALOG:
        shape, classes = usual_input(name)
        assert all(size > 0 for size in shape)
        assert classes > 1
