"""The health of blocks: each that a rule finds is ill, and those that its fault reaches are affected."""

from __future__ import annotations

import math

import pytest

from keras_residual.xray.health import healths
from keras_residual.xray.report import XrayReport
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
