"""The health of blocks: each that a rule finds is ill, and none is healthy beside a number that is not usual."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_residual.xray.health import HEALTHY, UNUSUAL, healths, verdict
from keras_residual.xray.page.render import section
from keras_residual.xray.quantities import QUANTITIES, by_request
from keras_residual.xray.quantities.jacobian import BRANCH_GAIN
from keras_residual.xray.quantities.quantity import LEAST_SAMPLES
from keras_residual.xray.report import XrayReport
from keras_residual.xray.rules import RULES
from xray.page.reports import in_stages, report, vanishing

pytestmark = pytest.mark.any_backend


def levels(found: XrayReport) -> str:
    """Returns a letter a block: h, a or i."""
    return "".join(health.level[0] for health in healths(found.blocks, found.model, found.advice))


def test_a_healthy_net_is_healthy_everywhere() -> None:
    assert levels(report()) == "hhhh"
    assert levels(XrayReport([], {})) == ""


def test_a_gradient_that_vanishes_affects_the_layers_that_get_a_tenth_of_the_last_hidden_one() -> None:
    assert levels(vanishing(6)) == "iaaahh"


def test_a_fault_of_one_block_stays_there() -> None:
    assert levels(in_stages()) == "hhhhhihhhhhh"


def test_all_of_many_ill_blocks_are_ill_although_one_entry_speaks_of_them() -> None:
    found = report(8, dead_units=[0.5] * 6 + [0.0] * 2)
    assert len(found.advice) == 1
    assert levels(found) == "iiiiiihh"


def test_all_behind_a_broken_block_is_affected() -> None:
    assert levels(report(nan=[0.0, 0.5, 1.0, 1.0])) == "hiaa"
    assert levels(report(inf=[0.0, 0.5, 0.0, 0.0], power=[1.0, math.inf, math.nan, math.nan])) == "hiaa"


def test_an_explosion_reaches_the_blocks_of_its_stage() -> None:
    shapes = [[8]] * 6 + [[4]] * 2
    gradients = [3.0 ** (5 - i) for i in range(6)] + [50.0, 50.0]
    found = report(8, gradient_norm=gradients, shape=shapes, model={"gradient_norm_input": 243.0})
    assert [entry.rule for entry in found.advice] == ["gradient_explodes"]
    assert levels(found) == "iaahhhhh"


def test_a_learning_rate_too_large_reaches_the_blocks_that_move_too_far() -> None:
    assert levels(report(update_ratio=[0.2, 0.9, 0.01, 0.3])) == "aiha"


def test_a_number_outside_its_range_is_unusual_though_no_rule_speaks() -> None:
    """As in a net whose samples were alike before it, so that a dead unit may be on for others."""
    found = report(dead_units=[0.0, 0.5, 0.0, 0.0], sample_cosine=[0.9] * 4)
    assert found.advice == []
    assert levels(found) == "huhh"
    level, words = verdict(found.advice, healths(found.blocks, found.model, found.advice))
    assert (level, words) == (UNUSUAL, "Nothing to change, but 1 of 4 blocks have numbers outside their usual range")
    assert words in str(section(found))
    assert "Outside the usual range: block_1: units that are always off 50 % (usual: below 20 %)." in str(found)


def test_ranges_hold_for_what_they_are_of() -> None:
    assert levels(report(gradient_underflow=[0.9] * 4)) == "hhhh", "no float16"
    assert levels(report(gradient_underflow=[0.2] * 4, model={"dtype": "float16"})) == "hhhh"
    few = report(dead_units=[0.5] * 4, sample_cosine=[0.9] * 4, model={"batch": LEAST_SAMPLES - 1})
    assert levels(few) == "hhhh", "units that are 0 for a few samples may be rare"
    free = report(double_stochasticity=[0.5] * 4, topology=["HyperConnections"] * 4)
    assert levels(free) == "hhhh"
    assert levels(report(sample_cosine=[0.97] * 4, model={"sample_cosine_input": 0.9})) == "hhhh", "as at the input"
    shapes: list[Any] = [[8, 8, 4], [8, 8, 4], [4, 4, 4], [4, 4, 4]]
    assert levels(report(gradient_norm=[30.0, 30.0, 1.0, 1.0], shape=shapes)) == "hhhh", "each stage by itself"


NUMBERS = st.one_of(
    st.none(), st.floats(-2, 2), st.floats(0, 1), st.sampled_from([0.0, 1e-9, 1e-3, 50.0, 1e6, math.nan, math.inf])
)
MEASURED = sorted({quantity.key for quantity in QUANTITIES} | {"power"})
NEVER_NONE = ("nan", "inf")


@st.composite
def reports(draw: st.DrawFn) -> XrayReport:
    """Returns a report of a few blocks, a few of whose quantities are anything."""
    count = draw(st.integers(1, 6))
    columns: dict[str, Any] = {}
    for key in draw(st.lists(st.sampled_from(MEASURED), max_size=4, unique=True)):
        values = draw(st.lists(NUMBERS, min_size=count, max_size=count))
        columns[key] = [value or 0.0 for value in values] if key in NEVER_NONE else values
    kind = draw(st.sampled_from(["residual", "layer", "stack"]))
    shapes = draw(st.lists(st.sampled_from([[8, 4], [4, 4]]), min_size=count, max_size=count))
    return report(
        count,
        {
            "dtype": draw(st.sampled_from(["float32", "float16"])),
            "batch": draw(st.sampled_from([4, 64])),
            "sample_cosine_input": draw(st.sampled_from([None, 0.0, 0.5, 0.99, math.nan])),
        },
        kind=[kind] * count,
        shape=shapes,
        topology=[draw(st.sampled_from([None, "MHC", "HyperConnections"]))] * count,
        **columns,
    )


@given(reports())
def test_nothing_is_healthy_beside_a_value_outside_its_range(found: XrayReport) -> None:
    health = healths(found.blocks, found.model, found.advice)
    level, _ = verdict(found.advice, health)
    for quantity in QUANTITIES:
        for odd, own in zip(quantity.odd(found.blocks, found.model), health, strict=True):
            assert not odd or (own.level != HEALTHY and level != HEALTHY), quantity.key
    assert ("Healthy" in found._repr_html_()) == (level == HEALTHY)
    assert level != HEALTHY or str(found).endswith("Nothing to advise.\n")


OF_ONE_BLOCK = {
    "learning_rate": "update_ratio",
    "transport_gain": "transport_gain",
    "double_stochasticity": "double_stochasticity",
    "samples_alike": "sample_cosine",
    "dead_units": "dead_units",
    "saturated_units": "saturated_units",
}
"""Rules that name a block for its own value of one quantity."""


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.name in OF_ONE_BLOCK], ids=lambda rule: rule.name)
def test_what_a_rule_names_is_outside_the_range_of_its_quantity(rule: Any) -> None:
    quantity = next(quantity for quantity in QUANTITIES if quantity.key == OF_ONE_BLOCK[rule.name])
    spoken = 0

    @given(st.lists(st.floats(0, 2) | st.floats(1e-3, 1e3), min_size=13, max_size=13), st.booleans())
    def check(values: list[float], layer: bool) -> None:
        nonlocal spoken
        kind = ["layer" if layer else "stack"] * 13
        found = report(13, kind=kind, topology=["MHC"] * 13, **{quantity.key: values})
        named = {entry.block for entry in rule(found.blocks, found.model)}
        spoken += len(named)
        odd = quantity.odd(found.blocks, found.model)
        assert all(is_odd for is_odd, block in zip(odd, found.blocks, strict=True) if block["name"] in named)

    check()
    assert spoken, "the rule has been tried"


PAGE = (Path(__file__).parents[2] / "docs" / "xray.md").read_text(encoding="utf-8")
ROWS = [re.split(r" ?\| ?", line)[1:-1] for line in PAGE.splitlines() if line.startswith("| ")]
BLOCK_ROWS, REQUEST_ROWS = ({row[0].strip("`"): row[1:] for row in ROWS if len(row) == length} for length in (5, 4))
BY_BLOCK = [quantity for quantity in QUANTITIES if quantity.of not in ("model", "request", "another")]


def test_the_documentation_has_each_quantity_as_it_is() -> None:
    """A row: key, column of the table, label of the page, definition, usual range."""
    for quantity in BY_BLOCK:
        beside = {q.chart.beside[0]: q.chart.beside[1] for q in QUANTITIES if q.chart and q.chart.beside}
        label = quantity.label or beside.get(quantity.key, "")
        assert BLOCK_ROWS[quantity.key] == [
            quantity.column or "–",
            label or "–",
            quantity.definition,
            quantity.usual or "–",
        ]
    assert BLOCK_ROWS.keys() - {"key", "---"} == {quantity.key for quantity in BY_BLOCK}


def test_the_documentation_has_each_quantity_on_request_as_it_is() -> None:
    """A row: name, title or label of its picture, definition, cost."""
    for name, quantity in by_request().items():
        assert quantity.cost is not None
        assert REQUEST_ROWS[name][1:] == [quantity.definition, quantity.cost.in_words()]
        if quantity.label:
            assert REQUEST_ROWS[name][0] == quantity.label
    assert f'`branch_gain`, on the page "{BRANCH_GAIN.label}": {BRANCH_GAIN.definition}' in " ".join(PAGE.split())


def test_the_documentation_has_the_line_above_the_table() -> None:
    for quantity in QUANTITIES:
        if quantity.headline is not None:
            title, definition = quantity.headline
            assert f"| {title} | {definition} |" in PAGE


def test_the_documentation_defines_each_quantity_of_the_whole() -> None:
    for quantity in QUANTITIES:
        if quantity.of == "model":
            assert f"| `{quantity.key}` | {quantity.definition} |" in PAGE
