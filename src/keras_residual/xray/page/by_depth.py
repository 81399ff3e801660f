"""Pictures of a quantity by depth, as Vega-Lite specifications; colours are names of the style sheet's variables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from keras_residual.xray.health import AFFECTED, HEALTHY, ILL, UNUSUAL
from keras_residual.xray.page.numbers_in_words import power_of_ten
from keras_residual.xray.quantities.chart import HEIGHT, DepthChart
from keras_residual.xray.quantities.quantity import Quantity
from keras_residual.xray.stages import Stage

MOST_MARKED = 150
"""Blocks that each get a point; of more, only those that are not healthy."""

MOST_POWERS = 6
"""Powers of ten that an axis names."""

LEAST_ZOOMED = 60
"""Blocks from which on a part of the depth can be looked at."""

Values = Sequence[float | None]
Spec = dict[str, Any]


def by_depth(
    quantity: Quantity,
    chart: DepthChart,
    values: Values,
    more: Sequence[Values],
    stages: Sequence[Stage],
    usual: Sequence[tuple[float, float] | None],
) -> Spec:
    """Returns the specification of a quantity's picture.

    The data come with the page, named `blocks`: a row for each block with its `index` from 1 on, `left` and `right`
    half a step beside it, `level`, the value `v`, the second one `w`, that of an earlier time `b`, and `odd` where the
    value cannot be drawn. The parameter `picked` is the index of the block that is looked at.

    Args:
        quantity: What is drawn.
        chart: How it is drawn.
        values: A value a block; None where there is none.
        more: The second quantity and the values of an earlier time, as far as there are any.
        stages: The stages of the net.
        usual: The usual range at each block; Nones where there is none.
    """
    count = len(values)
    every = [value for column in (values, *more) for value in column]
    scale = _log_scale(every) if chart.log else _linear_scale(every, chart)
    y = {
        "type": "quantitative",
        "scale": scale,
        "axis": {
            "title": chart.axis,
            **(_powers(scale["domain"], quantity.percent) if chart.log else _steps(quantity.percent)),
        },
    }
    bands = list(_bands(usual, stages, scale["domain"]))
    layers = [
        *_background(chart, bands, stages, y),
        *(_bars(count, y) if chart.bars else _lines(y)),
        _picked(),
        _points(count, y),
        _odd(),
        _hover(quantity, chart),
    ]
    if count >= LEAST_ZOOMED:
        layers[-1]["params"].append(_zoom())
    return {
        "width": "container",
        "height": HEIGHT,
        "data": {"name": "blocks"},
        "params": [{"name": "picked", "value": 0}],
        "encoding": {"x": _x(count)},
        "layer": layers,
    }


# --- Axes ------------------------------------------------------------------------------------------------------------


def _x(count: int) -> Spec:
    return {
        "field": "index",
        "type": "quantitative",
        "scale": {"domain": [0.5, count + 0.5], "nice": False, "zero": False},
        "axis": {"title": "block", "format": "d", "tickMinStep": 1, "grid": False},
    }


def _log_scale(values: Sequence[float | None]) -> Spec:
    """Returns a scale of at least two powers of ten: on a narrower one, small differences would look like large."""
    logs = [math.log10(v) for v in values if v is not None and math.isfinite(v) and v > 0] or [0.0]
    low, high = min(logs) - 0.1, max(logs) + 0.1
    middle, half = (low + high) / 2, max(1.0, (high - low) / 2)
    return {"type": "log", "domain": [10 ** max(middle - half, -300), 10 ** min(middle + half, 300)]}


def _linear_scale(values: Sequence[float | None], chart: DepthChart) -> Spec:
    if chart.domain is not None:
        return {"domain": list(chart.domain)}
    finite = [v for v in values if v is not None and math.isfinite(v)]
    low, high = min([0.0, *finite]), max([0.0, *finite])
    return {"domain": [low, high] if low < high else [0.0, 1.0], "nice": True}


def _steps(percent: bool) -> Spec:
    return {"format": "~%" if percent else "~g", "tickCount": 5}


def _powers(domain: list[float], percent: bool) -> Spec:
    """Returns an axis with powers of ten only, not more than there is room for."""
    first, last = math.ceil(math.log10(domain[0])), math.floor(math.log10(domain[1]))
    step = -(-(last - first + 1) // MOST_POWERS)
    exponents = range(first, last + 1, step)
    names = {str(exponent): power_of_ten(exponent, percent=percent) for exponent in exponents}
    return {
        "values": [10.0**exponent for exponent in exponents],
        "labelExpr": f"({json.dumps(names)})['' + round(log(datum.value) / LN10)]",
    }


# --- Layers ----------------------------------------------------------------------------------------------------------


def _background(chart: DepthChart, bands: list[Spec], stages: Sequence[Stage], y: Spec) -> list[Spec]:
    layers: list[Spec] = []
    if bands:
        layers.append(
            {
                "data": {"values": bands},
                "mark": {"type": "rect", "color": "--band", "clip": True},
                "encoding": {
                    "x": {"field": "left", "type": "quantitative"},
                    "x2": {"field": "right"},
                    "y": {**y, "field": "low"},
                    "y2": {"field": "high"},
                },
            }
        )
    if len(stages) > 1:
        borders = [{"left": stage.start + 0.5} for stage in stages[1:]]
        layers.append(
            {
                "data": {"values": borders},
                "mark": {"type": "rule", "color": "--soft", "strokeDash": [2, 3], "clip": True},
                "encoding": {"x": {"field": "left", "type": "quantitative"}},
            }
        )
    if chart.neutral is not None:
        layers.append(
            {
                "data": {"values": [{"level": chart.neutral}]},
                "mark": {"type": "rule", "color": "--soft", "clip": True},
                "encoding": {"x": {"value": 0}, "x2": {"value": "width"}, "y": {**y, "field": "level"}},
            }
        )
    return layers


def _bands(usual: Sequence[tuple[float, float] | None], stages: Sequence[Stage], domain: list[float]) -> Iterator[Spec]:
    """Yields the shaded parts, one a stage: its usual range as far as the picture goes."""
    for stage in stages:
        limits = usual[stage.start]
        if limits is not None:
            ends = [min(max(edge, domain[0]), domain[1]) for edge in limits]
            yield {"left": stage.start + 0.5, "right": stage.stop + 0.5, "low": ends[0], "high": ends[1]}


def _lines(y: Spec) -> list[Spec]:
    def line(field: str, color: str, **style: Any) -> Spec:
        mark = {"type": "line", "color": color, "strokeWidth": 2, "clip": True, "invalid": "break-paths-show-domains"}
        return {"mark": {**mark, **style}, "encoding": {"y": {**y, "field": field}}}

    return [
        line("b", "--earlier", strokeDash=[5, 4]),
        line("w", "--second", strokeDash=[1, 3], strokeCap="round"),
        line("v", "--first"),
    ]


def _bars(count: int, y: Spec) -> list[Spec]:
    apart = {"stroke": "--paper"} if count < LEAST_ZOOMED else {}

    def bar(field: str, color: str, **style: Any) -> Spec:
        return {
            "mark": {"type": "rect", "fill": color, "clip": True, **apart, **style},
            "encoding": {
                "x": {"field": "left", "type": "quantitative"},
                "x2": {"field": "right"},
                "y": {**y, "field": field},
                "y2": {"datum": 0},
            },
        }

    def ticks(field: str) -> Spec:
        return {
            "mark": {"type": "line", "interpolate": "step", "color": "--earlier", "strokeDash": [5, 4], "clip": True},
            "encoding": {"y": {**y, "field": field}},
        }

    return [bar("v", "--first"), bar("w", "--second", opacity=0.7), ticks("b")]


def _points(count: int, y: Spec) -> Spec:
    shown = "isValid(datum.v)" if count <= MOST_MARKED else f"isValid(datum.v) && datum.level !== '{HEALTHY}'"
    levels = [HEALTHY, UNUSUAL, AFFECTED, ILL]
    return {
        "transform": [{"filter": shown}],
        "mark": {"type": "point", "filled": True, "opacity": 1, "clip": True},
        "encoding": {
            "y": {**y, "field": "v"},
            "color": _by_level(levels, ["--first", "--unusual", "--affected", "--ill"]),
            "shape": _by_level(levels, ["circle", "square", "diamond", "cross"]),
            "size": {"condition": {"test": f"datum.level === '{HEALTHY}'", "value": 24}, "value": 65},
        },
    }


def _by_level(levels: list[str], values: list[Any]) -> Spec:
    return {"field": "level", "type": "nominal", "scale": {"domain": levels, "range": values}, "legend": None}


def _odd() -> Spec:
    """Marks at the bottom the blocks whose value is an exact zero, infinite or not a number."""
    zero = {"test": "datum.odd === 'zero'", "value": "--soft"}
    return {
        "transform": [{"filter": "isValid(datum.odd)"}],
        "mark": {"type": "point", "filled": True, "opacity": 1, "shape": "triangle-down", "size": 50},
        "encoding": {"y": {"value": HEIGHT - 5}, "color": {"condition": zero, "value": "--ill"}},
    }


def _picked() -> Spec:
    return {
        "transform": [{"filter": "datum.index === picked"}],
        "mark": {"type": "rule", "color": "--picked", "strokeWidth": 2, "clip": True},
    }


def _hover(quantity: Quantity, chart: DepthChart) -> Spec:
    """Returns a column for each block over the whole height, which says its name and value."""
    names = [("block", "block"), ("shown_v", quantity.label), ("shown_b", "earlier")]
    if chart.beside:
        names.insert(2, ("shown_w", chart.beside[1]))
    return {
        "params": [{"name": "under", "select": {"type": "point", "on": "pointerover", "clear": "pointerout"}}],
        "mark": {"type": "rect", "fill": "--picked", "clip": True, "cursor": "pointer"},
        "encoding": {
            "x": {"field": "left", "type": "quantitative"},
            "x2": {"field": "right"},
            "y": {"value": 0},
            "y2": {"value": HEIGHT},
            "opacity": {"condition": {"param": "under", "empty": False, "value": 0.12}, "value": 0.001},
            "tooltip": [{"field": field, "type": "nominal", "title": title} for field, title in names],
        },
    }


def _zoom() -> Spec:
    return {
        "name": "part",
        "bind": "scales",
        "select": {"type": "interval", "encodings": ["x"], "zoom": "wheel![event.ctrlKey]"},
    }
