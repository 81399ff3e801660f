"""What the rules on several streams speak of, and what they let pass."""

from __future__ import annotations

from typing import Any

import pytest

from keras_residual.xray.rules.streams import double_stochasticity, streams_alike, transport_gain

pytestmark = pytest.mark.any_backend

MODEL: dict[str, Any] = {}


def stack(name: str = "stack", **values: list[float]) -> list[dict[str, Any]]:
    nothing = {"stream_collapse": None, "transport_gain": None, "double_stochasticity": None, "topology": "MHC"}
    count = len(next(iter(values.values())))
    blocks: list[dict[str, Any]] = [{**nothing, "name": f"{name}.{index}"} for index in range(count)]
    for key, each in values.items():
        for block, value in zip(blocks, each, strict=True):
            block[key] = value
    return blocks


def names(rule: Any, blocks: list[dict[str, Any]]) -> list[str]:
    return [entry.block for entry in rule(blocks, MODEL)]


def test_a_gain_that_grows_or_dies_is_named_where_it_goes_too_far() -> None:
    assert names(transport_gain, stack(transport_gain=[1.0, 8.0, 40.0, 200.0])) == ["stack.2"]
    assert names(transport_gain, stack(transport_gain=[1.0, 0.1, 0.02, 0.0])) == ["stack.2"]
    assert names(transport_gain, stack(transport_gain=[1.0, 4.0, 4.0, 0.2])) == []
    assert names(transport_gain, stack(transport_gain=[1.0, float("inf")])) == ["stack.1"]
    (entry,) = transport_gain(stack(transport_gain=[40.0, 2000.0]), MODEL)
    assert "a gain of 40 from the first block to here, and of 2e+03 to the last" in entry.finding


def test_of_two_stacks_each_is_looked_at_by_itself() -> None:
    two = [*stack("a", transport_gain=[50.0, 60.0]), *stack("b.0", transport_gain=[1.0, 50.0])]
    assert names(transport_gain, two) == ["a.0", "b.0.1"]
    parted = [*stack("a", stream_collapse=[0.3] * 4), *stack("b", stream_collapse=[1.0] * 4)]
    assert names(streams_alike, parted) == []


def test_streams_are_alike_once_they_have_parted_and_no_sooner() -> None:
    assert names(streams_alike, stack(stream_collapse=[1.0, 0.5, 0.995, 0.99])) == ["stack.2"]
    assert names(streams_alike, stack(stream_collapse=[1.0, 0.99, 0.999, 1.0])) == [], "copies, as they begin"
    assert names(streams_alike, stack(stream_collapse=[1.0, 0.95, 0.99, 0.99])) == [], "they have hardly parted"
    assert names(streams_alike, stack(stream_collapse=[0.5, 0.995, 0.6, 0.5])) == [], "they part again"
    assert names(streams_alike, stack(stream_collapse=[0.5] * 15 + [1.0])) == [], "the last block alone"


def test_only_what_should_be_doubly_stochastic_is_held_to_it() -> None:
    errors = [0.0, 0.2, 0.01]
    assert names(double_stochasticity, stack(double_stochasticity=errors)) == ["stack.1"]
    free = [{**block, "topology": "HyperConnections"} for block in stack(double_stochasticity=errors)]
    assert names(double_stochasticity, free) == []


def test_reports_without_these_numbers_pass() -> None:
    blocks = [{"name": "block", "kind": "residual"}]
    assert [names(rule, blocks) for rule in (transport_gain, double_stochasticity, streams_alike)] == [[]] * 3
