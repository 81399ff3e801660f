"""What a page is told of a report."""

from __future__ import annotations

import json
import math

import keras
import numpy as np
import pytest

import keras_residual as kr
from keras_residual.xray.page.content import CHAPTERS, Content
from keras_residual.xray.quantities import QUANTITIES, measured_of
from keras_residual.xray.report import XrayReport
from keras_residual.xray.rules.gradients import gradient_vanishes
from xray.page.reports import BLOCK, in_stages, of_everything, report, vanishing

pytestmark = pytest.mark.any_backend

WHOLE = [quantity.key for quantity in QUANTITIES if quantity.draw is not None]
WITH_ANOTHER = {"sharpness"}


def test_every_quantity_that_can_be_asked_for_has_a_picture() -> None:
    drawn = {quantity.key for quantity in QUANTITIES if quantity.chart or quantity.draw} | WITH_ANOTHER
    assert {quantity.key for quantity in measured_of("request")} - drawn == set()


def test_the_table_of_words_is_whole() -> None:
    for whole in (True, False):
        keys = [quantity.key for quantity in QUANTITIES if quantity.of_whole == whole]
        assert len(keys) == len(set(keys))
    for quantity in QUANTITIES:
        assert quantity.definition
        if quantity.chart is not None:
            assert quantity.label
            assert quantity.chart.chapter in CHAPTERS


def test_only_what_was_measured_has_a_picture() -> None:
    keys = [picture.key for picture in Content(vanishing()).pictures]
    assert keys == ["gradient_norm", "weight_gradient_ratio", "variance", "sample_cosine"]
    everything = [picture.key for picture in Content(of_everything()).pictures]
    assert {"lesion", "chi", "early_exit", "update_ratio", "transport_gain", *WHOLE} <= set(everything)
    assert "nan" not in everything
    assert "gradient_underflow" not in everything


def test_broken_numbers_and_float16_have_pictures_where_there_are_any() -> None:
    keys = [picture.key for picture in Content(report(4, {"dtype": "float16"}, inf=[0, 0.1, 0, 0])).pictures]
    assert {"nan", "gradient_underflow"} <= set(keys)


def test_the_data_are_json_and_tell_zero_from_nothing_and_from_what_is_no_number() -> None:
    content = Content(report(gradient_norm=[0.0, None, math.nan, math.inf]))
    data = json.loads(json.dumps(content.data(content.pictures), allow_nan=False))
    assert data["now"]["gradient_norm"] == [0.0, None, "not a number", "infinite"]


def test_each_ill_block_has_the_advice_on_it() -> None:
    content = Content(report(dead_units=[0.5, 0.0, 0.6, 0.0], frozen=[False, False, True, False]))
    data = content.data(content.pictures)
    spoken = {index: [content.advice[entry].rule for entry in entries] for index, entries in data["advice"].items()}
    assert spoken == {"0": ["dead_units"], "2": ["frozen", "dead_units"]}
    assert content.advice[data["advice"]["2"][1]].block == "block_2"
    assert data["picked"] == 0


def test_of_a_fault_of_many_blocks_each_has_the_one_advice() -> None:
    content = Content(report(8, dead_units=[0.5] * 8))
    assert set(content.data([])["advice"]) == {str(i) for i in range(8)}


def test_an_affected_block_is_told_why() -> None:
    content = Content(vanishing(6))
    assert content.data([])["suffers"]["1"] == [gradient_vanishes.in_words]
    assert content.first_picked == 0


def test_stages_are_named_where_they_are_few() -> None:
    assert [stage.shape for stage in Content(in_stages()).stages] == ["32 × 32 × 16", "16 × 16 × 32", "8 × 8 × 64"]
    assert Content(in_stages()).stage_names
    assert not Content(report()).stage_names
    assert not Content(report(20, shape=[[i] for i in range(20)])).stage_names


def test_a_sentence_says_where_least_and_most_are() -> None:
    (picture, *_) = Content(report(gradient_norm=[1e-5, 1.0, 2.0, 1.0])).pictures
    assert picture.here == "Here it is least at block 1 (block_0): 1e-5, and most at block 3 (block_2): 2."
    (picture, *_) = Content(report(gradient_norm=[1.0, 1.0, math.nan, 1.0])).pictures
    assert picture.here == "Here it is 1 everywhere. It is no finite number at 1 of 4 blocks."


def test_an_earlier_report_is_drawn_beside_it_only_if_it_is_of_the_same_blocks() -> None:
    content = Content(report(), report(variance=[2.0] * 4), "before training")
    assert content.data([])["earlier"]["variance"] == [2.0] * 4
    assert ("earlier", "before training") in content.pictures[0].legend
    assert Content(report(), report(5)).data([])["earlier"] == {}


def test_a_report_of_nothing_and_one_of_few_keys_are_shown() -> None:
    content = Content(XrayReport([], {}))
    assert (content.pictures, content.counts) == ([], {})
    json.dumps(content.data([]))
    single = Content(XrayReport([{**BLOCK, "kind": "something"}], {"dtype": "float32", **report().model}))
    assert single.data(single.pictures)["kinds"] == ["something"]


# Of a block's numbers, those that no reader without prior knowledge has a use for.
LEFT_OUT = {
    "activations",
    "branch_variance",
    "gradient_nan",
    "maps",
    "norms",
    "power",
    "skip_scale",
    "underflow",
    "update_size",
    "weight_gradient_norm",
}


def test_no_number_of_a_real_report_is_forgotten() -> None:
    rng = np.random.default_rng(0)
    block = kr.Residual([keras.layers.Dense(8, activation="relu"), keras.layers.Dense(8)], skip_scale=0.9)
    model = keras.Sequential([keras.Input((8,)), block, keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    found = kr.xray(model, rng.normal(size=(32, 8)), rng.integers(0, 3, 32))
    numbers = {
        key
        for block in found.blocks
        for key, value in block.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    in_words = {quantity.key for quantity in QUANTITIES if quantity.label}
    in_words |= {q.chart.beside[0] for q in QUANTITIES if q.chart and q.chart.beside}
    assert numbers - in_words - LEFT_OUT == set()
    assert {"stream_collapse", "transport_gain", "double_stochasticity"} <= in_words  # of stacks with streams
    assert {"gradient_norm", "update_ratio"} <= {picture.key for picture in Content(found).pictures}
