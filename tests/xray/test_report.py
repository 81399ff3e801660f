from __future__ import annotations

import dataclasses
import json
import math
import operator
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

import keras_residual as kr
from keras_residual.xray import rules as rules_package
from keras_residual.xray.page.table import title_of
from keras_residual.xray.report import XrayReport
from keras_residual.xray.rules import RULES, Advice, advise

pytestmark = pytest.mark.any_backend

BLOCK = {
    "name": "block",
    "kind": "residual",
    "shape": [4],
    "gradient_norm": 1.0,
    "gradient_spread": 0.1,
    "gradient_nan": 0.0,
    "gradient_underflow": 0.0,
    "power": 1.0,
    "variance": 1.0,
    "sample_cosine": 0.1,
    "additive": True,
    "nan": 0.0,
    "inf": 0.0,
    "update_ratio": None,
    "weight_gradient_norm": 1.0,
    "branch_ratio": 0.5,
    "branch_variance": 1.0,
    "branch_cosine": 0.0,
    "share": 1.0,
    "dead_units": None,
    "saturated_units": None,
    "norm": ["pre"],
    "norms": 1,
    "maps": 2,
    "activations": 1,
    "skip_scale": None,
    "projected": False,
    "frozen": False,
    "duplicate_of": None,
}
MODEL = {
    "connections": 4,
    "dtype": "float32",
    "batch": 64,
    "gradient_ratio": 1.0,
    "gradient_norm_input": 1.0,
    "sample_cosine_input": 0.0,
    "signal_ratio": 1.0,
}


def blocks(count: int = 4, **changes: list) -> list[dict]:
    made = [{**BLOCK, "name": f"block_{index}"} for index in range(count)]
    for key, values in changes.items():
        for block, value in zip(made, values, strict=True):
            block[key] = value
    return made


def rules(made: list[dict], **model: object) -> list[tuple[str, str]]:
    return [(entry.rule, entry.block) for entry in advise(made, {**MODEL, **model})]


def test_nothing_wrong_no_advice() -> None:
    assert rules(blocks()) == []
    assert advise([], MODEL) == []


def test_every_rule_comes_after_those_that_silence_it() -> None:
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    for index, rule in enumerate(RULES):
        assert set(rule.unless) <= set(names[:index]), rule.name


def test_what_the_advice_names_is_there() -> None:
    folder = Path(str(rules_package.__file__)).parent
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("*.py")]
    names = {name for text in texts for name in re.findall(r"\bkr((?:\.\w+)+)", text)}
    assert "residualize" in str(names)
    for name in names:
        operator.attrgetter(name.removeprefix("."))(kr)


def test_advice_is_computed_once_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def find(*_: object) -> Iterator[tuple[str, str, str]]:
        asked.append(1)
        yield from ()

    monkeypatch.setattr(rules_package.rule, "RULES", [dataclasses.replace(RULES[0], find=find)])
    report = XrayReport(blocks(), MODEL)
    for _ in range(2):
        assert report.advice == []
        assert str(report)
        assert report.to_dict()["advice"] == []
    assert len(asked) == 1


def test_nan_ends_the_advice_and_inf_comes_before_it() -> None:
    assert rules(blocks(nan=[0, 0.5, 1, 1], frozen=[False, True, True, True])) == [("not_a_number", "block_1")]
    assert rules(blocks(inf=[0, 0.1, 0, 0], nan=[0, 0, 1, 1])) == [("overflow", "block_1")]


def test_growth_by_a_factor_is_told_from_growth_by_a_sum() -> None:
    exponential = [10.0**i for i in range(8)]
    assert rules(blocks(8, power=exponential))[0] == ("signal_grows", "block_3")
    assert rules(blocks(2000, power=[1.0 + i for i in range(2000)])) == []


def test_the_gradient_of_a_stage() -> None:
    exponential = [2.0 ** (4 - i) for i in range(8)]
    found = rules(blocks(8, gradient_norm=exponential), gradient_norm_input=32.0, gradient_ratio=256.0)
    assert found == [("gradient_explodes", "block_0")]
    # The same fall, but in three stages of maps of other sizes.
    shapes = [[8, 8, 4]] * 3 + [[4, 4, 4]] * 3 + [[2, 2, 4]] * 2
    assert (
        rules(blocks(8, gradient_norm=exponential, shape=shapes), gradient_ratio=256.0, gradient_norm_input=None) == []
    )
    slow = [(i + 1) ** -0.5 for i in range(400)]
    assert rules(blocks(400, gradient_norm=slow), gradient_norm_input=1.0) == []
    slower = [(i + 1) ** -0.6 for i in range(400)]
    assert rules(blocks(400, gradient_norm=slower)) == [("gradient_grows", "block_0")]
    assert rules(blocks(gradient_norm=[0.1, 0.3, 0.6, 1]), gradient_norm_input=0.05) == [
        ("gradient_vanishes", "block_0")
    ]
    assert rules(blocks(gradient_norm=[0.0] * 4), gradient_ratio=math.nan) == [("no_gradient", "block_3")]


def test_the_tail_of_unused_blocks() -> None:
    ratios = [1.0, 0.5, *[0.005] * 4]
    assert rules(blocks(6, branch_ratio=ratios)) == [("unused_depth", "block_2")]
    assert rules(blocks(6, branch_ratio=[1e-5] * 6)) == [], "small everywhere is a small scale, not a tail"


def test_samples_that_become_alike() -> None:
    cosines = [0.5, 0.9, 0.96, 0.99]
    assert rules(blocks(sample_cosine=cosines)) == [("samples_alike", "block_2")]
    assert rules(blocks(sample_cosine=cosines), sample_cosine_input=0.95) == [], "they were alike before"
    dead = [0.1, 0.1, 0.5, 0.5]
    assert rules(blocks(sample_cosine=[0.1, 0.1, 0.1, 0.9], dead_units=dead)) == [("dead_units", "block_2")]


def test_many_blocks_of_one_fault_are_one_entry() -> None:
    entries = advise(blocks(10, dead_units=[0.5] * 10), MODEL)
    assert [entry.block for entry in entries] == ["block_0"]
    assert "9 more blocks" in entries[0].finding


def test_a_first_frozen_part_is_how_one_fine_tunes() -> None:
    gradients = [None, None, 1.0, 1.0]
    assert rules(blocks(frozen=[True, True, False, False], weight_gradient_norm=gradients)) == []


def test_the_report_as_dictionary_file_and_table(tmp_path) -> None:
    report = XrayReport(blocks(60, branch_cosine=[math.inf, *[1.0] * 59], dead_units=[None] * 59 + [0.5]), MODEL)
    assert set(report.to_dict()) == {"blocks", "model", "advice"}
    assert set(report.to_dict()["advice"][0]) >= {"block", "finding", "change", "because"}
    report.to_json(tmp_path / "report.json")
    loaded = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert loaded["blocks"][0]["branch_cosine"] is None
    assert loaded["blocks"][59]["dead_units"] == 0.5
    text = str(report)
    assert "block_0" in text
    assert "block_59" in text
    assert "block_30" not in text
    assert "block_59: 50% of its ReLU units" in text
    assert "Change:" in text
    assert "Nothing to advise." in str(XrayReport(blocks(), MODEL))
    assert isinstance(report.advice[0], Advice)


HOSTILE = "\x1b[31mred\x1b]0;owned\x07 [bold]x[/bold] :smile: \r\n<script>alert(1)</script> \u202eevil"


def test_the_line_above_the_table_is_of_the_numbers_in_it() -> None:
    norms, variances = [3.0, 1.0, None, 1.5], [0.5, 1.0, 1.0, 4.0]
    made = blocks(gradient_norm=norms, variance=variances)
    told = "gradient, first row over last: 2; variance, last row over first: 8"
    other = MODEL | {"gradient_ratio": 77.0, "signal_ratio": 77.0}  # from the input, which has no row
    assert title_of(XrayReport(made, other)) == f"4 connections; {told}"
    # One row has no two ends.
    assert title_of(XrayReport(made[:1], other)) == "1 connection"


def test_names_reach_a_terminal_as_text_and_nothing_else() -> None:
    name = ["a", HOSTILE, "b", "c"]
    advised = XrayReport(blocks(4, name=name, dead_units=[None, 0.5, None, None]), MODEL)
    unusual = XrayReport(blocks(4, name=name, nan=[0, 0, 0, 0], gradient_norm=[1.0, 12.0, 1.0, 1.0]), MODEL)
    many = XrayReport(blocks(60, name=[HOSTILE] * 60), MODEL)
    for text in (str(advised), str(unusual), str(many), str(advised.advice[0])):
        assert all(character.isprintable() or character == "\n" for character in text)
        assert "\\x1b[31mred" in text
    assert "[bold]x[/bold] :smile: \\r\\n<script>" in str(advised), "neither markup nor an emoji"
    assert "\n" not in str(advised.advice[0])
    assert advised.advice[0].block == HOSTILE, "programs get the name as it is"


class Elements(HTMLParser):
    """Collects the elements and attributes of a piece of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {key for key, _ in attrs}


@pytest.mark.parametrize("ill", [True, False], ids=["ill", "unusual"])
def test_a_notebook_shows_a_table_and_the_advice_and_runs_nothing(ill: bool) -> None:
    name = ["a", HOSTILE, "b", "c"]
    column: dict[str, list] = {"dead_units": [None, 0.5, None, None]} if ill else {"gradient_norm": [1, 12.0, 1, 1]}
    found = XrayReport(blocks(4, name=name, **column), {**MODEL, "name": HOSTILE})
    html = found._repr_html_()
    elements = Elements(html)
    assert set(elements.tags) <= {"div", "p", "b", "i", "ol", "li", "table", "thead", "tbody", "tr", "th", "td"}
    assert elements.attributes <= {"title", "colspan"}
    assert elements.tags.count("tr") == 5
    assert "<script" not in html
    assert ("&lt;script&gt;" in html) == ill, "in a table the middle of a long name is left out"
    assert "\x1b" not in html
    assert ("1 thing to change" in html) == ill
    assert ("outside their usual range" in html) != ill
    assert "<b>12</b>" in html or ill, "the odd number is bold"


def test_a_notebook_shows_a_deep_net_by_its_ends_and_an_empty_report_too() -> None:
    assert Elements(XrayReport(blocks(1000), MODEL)._repr_html_()).tags.count("tr") == 42
    assert "block_30" not in XrayReport(blocks(60), MODEL)._repr_html_()
    assert "table" not in Elements(XrayReport([], MODEL)._repr_html_()).tags


def test_steps_that_move_a_part_by_more_than_itself_are_named_though_the_others_do_not() -> None:
    def moved(ratio: float, size: float) -> list[dict]:
        return [
            {
                "name": "head",
                "matrix": True,
                "update_ratio": ratio,
                "update_size": size,
                "weight_gradient_norm": 1.0,
                "weight_gradient_ratio": 1.0,
            }
        ]

    small = blocks(4, update_ratio=[1e-3] * 4)
    assert rules(small, outside=moved(15.0, 2.0)) == [("learning_rate", "head")]
    assert rules(small, outside=moved(15.0, 1e-3)) == [], "a head that begins with zeros moves by more than it is"
    assert rules(small, outside=moved(0.5, 2.0)) == []
    assert rules(blocks(4, update_ratio=[0.5] * 4))[0][0] == "learning_rate"


def test_a_gradient_that_fades_between_two_blocks_is_found_though_the_ends_agree() -> None:
    norms = [1.0, 1e-5, 1e-5, 1.0, 1.0]
    found = rules(blocks(5, gradient_norm=norms))
    assert ("gradient_vanishes", "block_2") in found
    assert rules(blocks(5, gradient_norm=[1.0, 0.05, 0.05, 1.0, 1.0])) == []


def test_targets_are_held_against_what_the_model_gives() -> None:
    targets = {"name": "targets", "rms": 1e4, "same": False}
    ending = {"loss_is_distance": True, "output_rms": 0.5}
    assert rules(blocks(), targets=[targets], ending=ending) == [("target_scale", "targets")]
    assert rules(blocks(), targets=[targets], ending={**ending, "output_rms": 9e3}) == [], "it has learned them"
    assert rules(blocks(), targets=[targets], ending={**ending, "loss_is_distance": False}) == []


@pytest.mark.parametrize(
    ("seen", "classes", "count", "speaks"),
    [
        (3, 1000, 64, True),
        (3, 6, 64, True),  # by chance in one draw of 10^17
        (9, 10, 64, False),  # one class is rare
        (3, 6, 8, False),  # too few to tell
        (40, 1000, 64, True),
        (62, 1000, 64, False),  # as many as 64 draws of 1000 hold
    ],
)
def test_classes_that_are_missing_are_told_from_those_that_are_rare(
    seen: int, classes: int, count: int, speaks: bool
) -> None:
    kind = "sparse_categorical_crossentropy"
    labels = {"name": "targets", "kind": kind, "classes": classes, "count": count, "seen": seen}
    labels |= {"lowest": 0, "highest": seen - 1, "whole": 1.0, "off_one": 0.0}
    assert rules(blocks(), labels=[labels]) == ([("labels_alike", "targets")] if speaks else [])
