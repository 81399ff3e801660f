"""The names of the layers in each kind of model stay as they are: programs call `model.get_layer` with them.

A name that was meant to change is written by

    KERAS_RESIDUAL_WRITE_LAYER_NAMES=1 .venv/bin/python -m pytest tests/models/test_layer_names.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import keras_residual as kr
from keras_residual.models.catalog import usual_input
from keras_residual.models.costs import without_initial_values

FILE = Path(__file__).with_name("layer_names.json")
WRITE = bool(os.environ.get("KERAS_RESIDUAL_WRITE_LAYER_NAMES"))
# One net of each kind of stem, pool, stage and head.
NAMES = [
    *("test_resnet", "resnet10t", "resnet14t", "resnet18", "resnet50_gn", "resnetaa34d", "resnetblur18", "resnetrs50"),
    *("seresnet18", "ecaresnet26t", "ecaresnet50d_pruned", "senet154", "legacy_seresnet18"),
    *("resnetv2_18", "resnetv2_50t", "resnetv2_50d_evos", "resnetv2_50d_frn", "resnetv2_50x1_bit"),
    *("resnest14d", "res2net50_14w_8s", "skresnet18"),
    *("cifar_resnet20", "cifar_resnet20b", "cifar_preact_resnet110", "cifar_wrn_16_4"),
    *("resnet3d_10", "small_resnet", "series_resnet", "tabular_resnet"),
]


def layer_names(name: str) -> list[str]:
    """Returns the names of a model's layers."""
    shape, classes = usual_input(name)
    size = {4: (8, 32, 32, 3), 3: (32, 32, 3)}.get(len(shape), shape)
    with without_initial_values():
        model = kr.create_model(name, input_shape=size, num_classes=classes, dropout_rate=0.1 if len(size) > 2 else 0.0)
        return [layer.name for layer in model.layers]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_those_of_the_file(name: str) -> None:
    names = layer_names(name)
    if WRITE:
        known = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
        # A list a line keeps the file short, and a changed net one line of it.
        lines = [f'"{key}": {json.dumps((known | {name: names})[key])}' for key in sorted({*known, name})]
        FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    assert json.loads(FILE.read_text(encoding="utf-8"))[name] == names


@pytest.mark.any_backend
def test_the_file_has_these_nets_only() -> None:
    assert sorted(json.loads(FILE.read_text(encoding="utf-8"))) == sorted(NAMES)
