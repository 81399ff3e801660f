"""Pictures by depth: scales that make no small difference look large, bands by stage."""

from __future__ import annotations

import math
from typing import Any

import pytest

from keras_residual.xray.page.by_depth import LEAST_ZOOMED, by_depth
from keras_residual.xray.quantities.chart import DepthChart
from keras_residual.xray.quantities.quantity import Band, Quantity
from keras_residual.xray.stages import stages

pytestmark = pytest.mark.any_backend


def quantity(band: Band | None = None, **chart: Any) -> Quantity:
    """Returns a quantity that is drawn so."""
    return Quantity(
        key="k",
        definition="any number",
        of="stream",
        label="k",
        band=band,
        chart=DepthChart(title="?", words="A line.", axis="k", **chart),
    )


LOG = quantity(log=True)


def drawn(shown: Quantity, values: list[Any], more: list[Any], shapes: list[str] | None = None) -> dict[str, Any]:
    """Returns the picture of a quantity of blocks of these shapes."""
    shapes = shapes or ["16"] * len(values)
    each: Any = zip(values, shapes, strict=True)
    blocks = [{"kind": "residual", "projected": False, "shape": [shape], "k": value} for value, shape in each]
    usual = [None] * len(values) if shown.band is None else shown.band.limits("k", blocks, {})
    assert shown.chart is not None
    return by_depth(shown, shown.chart, values, more, stages(blocks), usual)


def y_domain(spec: dict[str, Any]) -> list[float]:
    (domain,) = {
        tuple(layer["encoding"]["y"]["scale"]["domain"])
        for layer in spec["layer"]
        if "scale" in layer.get("encoding", {}).get("y", {})
    }
    return list(domain)


def values_of(spec: dict[str, Any], mark: str) -> list[Any]:
    return [
        row
        for layer in spec["layer"]
        if layer["mark"]["type"] == mark and "data" in layer
        for row in layer["data"]["values"]
    ]


def test_a_small_difference_fills_no_picture() -> None:
    low, high = y_domain(drawn(LOG, [1.0, 1.1, 1.05, 1.0], []))
    assert high / low == pytest.approx(100)
    assert low < 1 < high


def test_a_large_difference_fits_in() -> None:
    low, high = y_domain(drawn(LOG, [1e-12, 1e-6, 1e-3, 1.0], [[1e3, None, None, None]]))
    assert 1e-13 < low < 1e-12
    assert 1e3 < high < 1e4


@pytest.mark.parametrize("values", [[None] * 4, [0.0] * 4, [math.nan] * 4, [math.inf, -1.0, 0.0, None], []])
def test_nothing_that_can_be_drawn_is_a_picture_still(values: list[float | None]) -> None:
    for shown in (LOG, quantity(Band(low=0.1, high=10.0, of="stage"))):
        low, high = y_domain(drawn(shown, values, []))
        assert math.isfinite(low)
        assert low < high


def test_linear_axes_have_their_zero() -> None:
    bars = quantity(bars=True)
    assert y_domain(drawn(bars, [0.5, 0.6, 0.7, 0.8], [])) == [0, 0.8]
    assert y_domain(drawn(bars, [-0.5, 0.6, 0.7, 0.8], [])) == [-0.5, 0.8]


def test_the_band_is_a_multiple_of_the_value_at_the_end_of_each_stage() -> None:
    banded = quantity(Band(low=0.1, high=10.0, of="stage"), log=True)
    spec = drawn(banded, [1e-4, 1.0, 1e4, 100.0], [], ["8", "8", "4", "4"])
    first, second = values_of(spec, "rect")
    assert first == {"left": 0.5, "right": 2.5, "low": pytest.approx(0.1), "high": pytest.approx(10)}
    assert second == {"left": 2.5, "right": 4.5, "low": pytest.approx(10), "high": pytest.approx(1000)}
    assert values_of(spec, "rule") == [{"left": 2.5}]


def test_the_band_ends_where_the_picture_does() -> None:
    banded = quantity(Band(low=-5.0, high=0.2), domain=(0.0, 1.0))
    (band,) = values_of(drawn(banded, [0.5] * 4, []), "rect")
    assert (band["low"], band["high"]) == (0, 0.2)


def test_only_a_deep_net_can_be_looked_at_in_parts() -> None:
    for count in (LEAST_ZOOMED - 1, LEAST_ZOOMED):
        spec = drawn(LOG, [1.0] * count, [])
        names = [param["name"] for layer in spec["layer"] for param in layer.get("params", ())]
        assert ("part" in names) is (count >= LEAST_ZOOMED)
