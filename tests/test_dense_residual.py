"""The first example: its sizes, layer by layer, and that it notices a difference."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

import keras_residual as kr

PATH = Path(__file__).parents[1] / "examples" / "dense_residual.py"


@pytest.fixture
def example():
    spec = importlib.util.spec_from_file_location("dense_residual", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sizes(model):
    return {layer.name: layer.count_params() for layer in model.layers if layer.count_params()}


def test_the_sizes_are_those_of_the_layers(example):
    assert sizes(example.by_hand()) == {"first": 352, "second": 2112, "branch": 4160}
    assert sizes(example.with_residual()) == {"first": 352, "second": 2112, "residual": 4160}
    assert example.by_hand().count_params() == example.with_residual().count_params() == 6624
    assert isinstance(example.with_residual().get_layer("residual"), kr.Residual)


def test_the_summary_shows_the_connection(example):
    lines = []
    example.with_residual().summary(print_fn=lines.append)
    rows = [re.findall(r"[\w(), ]+", line) for line in "\n".join(lines).splitlines() if "Residual" in line]
    assert [[cell.strip() for cell in row if cell.strip()] for row in rows] == [
        ["residual (Residual)", "(None, 64)", "4,160"]
    ]


def test_it_is_found_when_outputs_differ(example):
    hand, residual = example.by_hand(), example.with_residual()
    x = np.random.default_rng(0).normal(size=(8, 10)).astype("float32")
    residual.set_weights(hand.get_weights())
    example.check_equal(hand, residual, x)

    residual.set_weights([1.01 * weight for weight in hand.get_weights()])
    with pytest.raises(AssertionError, match=r"^by_hand and with_residual differ by "):
        example.check_equal(hand, residual, x)
