"""Pictures of the quantities of the whole net, which have no value for each block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from keras_residual.xray.page.by_depth import HEIGHT
from keras_residual.xray.page.picture import Chart

MOST_CELLS = 64
"""Depths in a row of a map of pairs; of more, some are left out evenly."""

Model = Mapping[str, Any]


def whole_net(model: Model, names: list[str]) -> list[Chart]:
    """Returns a picture for each quantity of the whole that the report has.

    Args:
        model: The quantities of the whole.
        names: The names of the blocks.
    """
    return [draw(model[key], model, names) for key, draw in WHOLE.items() if model.get(key)]


def _path_lengths(parts: list[float], model: Model, names: list[str]) -> Chart:
    bars = [
        {"left": k - 0.5, "right": k + 0.5, "branches": k, "part": part} for k, part in enumerate(parts) if part > 1e-5
    ]
    depth = model.get("effective_depth")
    spec = {
        "mark": {"type": "rect", "fill": "--first", "stroke": "--paper"},
        "encoding": {
            "x": {"field": "left", "type": "quantitative", "title": "blocks that a path goes through", **_EXACT},
            "x2": {"field": "right"},
            "y": {"field": "part", "type": "quantitative", "axis": {"title": "part of the gradient", "format": "~%"}},
            "y2": {"datum": 0},
            "tooltip": [
                {"field": "branches", "type": "quantitative", "title": "blocks"},
                {"field": "part", "type": "quantitative", "title": "part of the gradient", "format": ".2~%"},
            ],
        },
    }
    return Chart(
        key="path_lengths",
        title="How deep is the net really?",
        words="Each block can be passed by its shortcut, so that a net of many blocks is a bundle of many paths, long "
        "and short. The bars show through how many blocks those paths go that carry the learning signal. If the "
        "hill lies far left of the number of blocks, the net learns as a much shallower one.",
        here="" if depth is None else f"Here the mean is {depth:.3g} of {len(parts) - 1} blocks.",
        chapter="whole",
        spec=_alone(spec, bars),
    )


def _shattering(by_lag: Mapping[str, float], model: Model, names: list[str]) -> Chart:
    points = [{"lag": int(lag), "value": value} for lag, value in by_lag.items() if value is not None]
    spec = {
        "mark": {"type": "line", "color": "--first", "point": {"filled": True, "size": 50, "color": "--first"}},
        "encoding": {
            "x": {"field": "lag", "type": "quantitative", "title": "steps between two inputs", "scale": {"zero": True}},
            "y": {
                "field": "value",
                "type": "quantitative",
                "axis": {"title": "likeness of their gradients", "format": "~g"},
                "scale": {"domain": [-1, 1]},
            },
            "tooltip": [
                {"field": "lag", "type": "quantitative", "title": "steps"},
                {"field": "value", "type": "quantitative", "title": "likeness", "format": ".3~g"},
            ],
        },
    }
    first = points[0] if points else None
    return Chart(
        key="gradient_autocorrelation",
        title="Do neighbouring inputs agree on what to learn?",
        words="Two inputs that hardly differ should ask for nearly the same correction. The line shows how alike the "
        "corrections are, by how many small steps the inputs lie apart. Healthy is a line that begins near 1 and "
        "falls slowly. Around 0 from the start on the corrections are noise, and a step of training helps no input but "
        "the one it was made for.",
        here="" if first is None else f"Here, at {first['lag']} step apart, it is {first['value']:.3g}.",
        chapter="whole",
        spec=_alone(spec, points),
    )


def _cka(rows: list[list[float | None]], model: Model, names: list[str]) -> Chart:
    count = len(rows)
    step = -(-count // MOST_CELLS)
    kept = range(0, count, step)
    half = step / 2
    cells = [
        {
            "left": i + 1 - half,
            "right": i + 1 + half,
            "low": j + 1 - half,
            "high": j + 1 + half,
            "one": names[i],
            "other": names[j],
            "value": rows[i][j],
        }
        for i in kept
        for j in kept
        if rows[i][j] is not None
    ]
    near = [value for i in range(count - 1) if (value := rows[i][i + 1]) is not None]
    spec = {
        "mark": {"type": "rect"},
        "encoding": {
            "x": {"field": "left", "type": "quantitative", "title": "block", **_EXACT},
            "x2": {"field": "right"},
            "y": {"field": "low", "type": "quantitative", "title": "block", **_EXACT},
            "y2": {"field": "high"},
            "color": {
                "field": "value",
                "type": "quantitative",
                "scale": {"scheme": "viridis", "domain": [0, 1]},
                "legend": {"title": "likeness", "format": "~g"},
            },
            "tooltip": [
                {"field": "one", "type": "nominal", "title": "block"},
                {"field": "other", "type": "nominal", "title": "and block"},
                {"field": "value", "type": "quantitative", "title": "likeness", "format": ".3~g"},
            ],
        },
    }
    return Chart(
        key="cka",
        title="Which depths say the same?",
        words="Each cell compares what two blocks hand on: bright means that both say the same of the examples (CKA), "
        "dark that they say different things. The diagonal compares each block with itself. A large bright square is a "
        "run of blocks that repeat one another: that depth is hardly used.",
        here=f"Here neighbours are alike by {sum(near) / len(near):.3g} on average." if near else "",
        chapter="whole",
        spec={**_alone(spec, cells), "height": 320},
    )


def _loss_slice(found: Mapping[str, Any], model: Model, names: list[str]) -> Chart:
    pairs = zip(found["at"], found["loss"], strict=True)
    points = [{"at": at, "loss": loss} for at, loss in pairs if loss is not None]
    sharpness = model.get("sharpness")
    spec = {
        "layer": [
            {"mark": {"type": "line", "color": "--first"}},
            {
                "transform": [{"filter": "datum.at === 0"}],
                "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1, "color": "--picked"},
            },
        ],
        "encoding": {
            "x": {"field": "at", "type": "quantitative", "title": "distance from the weights, in their own size"},
            "y": {"field": "loss", "type": "quantitative", "axis": {"title": "loss", "format": "~g"}},
            "tooltip": [
                {"field": "at", "type": "quantitative", "title": "distance", "format": ".3~g"},
                {"field": "loss", "type": "quantitative", "title": "loss", "format": ".4~g"},
            ],
        },
    }
    return Chart(
        key="loss_slice",
        title="How rough is the ground that training walks on?",
        words="The dot is the net with its weights as they are. To both sides all weights are moved in one random "
        "direction, and the line shows the loss, the measure of mistakes. Healthy is a wide, smooth valley with the "
        "dot at its bottom. Jags and cliffs make small steps of training fail.",
        here="" if sharpness is None else f"Here the sharpest direction bends by {sharpness:.3g} (sharpness).",
        chapter="whole",
        spec=_alone(spec, points),
    )


def _loss_surface(found: Mapping[str, Any], model: Model, names: list[str]) -> Chart:
    at = found["at"]
    half = (at[-1] - at[0]) / (len(at) - 1) / 2 if len(at) > 1 else 0.5
    cells = [
        {"left": a - half, "right": a + half, "low": b - half, "high": b + half, "loss": loss}
        for a, row in zip(at, found["loss"], strict=True)
        for b, loss in zip(at, row, strict=True)
        if loss is not None
    ]
    losses = [cell["loss"] for cell in cells]
    wide = losses and min(losses) > 0 and max(losses) > 20 * min(losses)
    spec = {
        "mark": {"type": "rect"},
        "encoding": {
            "x": {"field": "left", "type": "quantitative", "title": "first random direction", "scale": _TIGHT},
            "x2": {"field": "right"},
            "y": {"field": "low", "type": "quantitative", "title": "second random direction", "scale": _TIGHT},
            "y2": {"field": "high"},
            "color": {
                "field": "loss",
                "type": "quantitative",
                "scale": {"scheme": "viridis", "reverse": True, "type": "log" if wide else "linear"},
                "legend": {"title": "loss", "format": "~g"},
            },
            "tooltip": [{"field": "loss", "type": "quantitative", "title": "loss", "format": ".4~g"}],
        },
    }
    return Chart(
        key="loss_surface",
        title="What does the ground look like from above?",
        words="The net as it is lies in the middle; outwards all weights are moved in two random directions. Bright "
        "is a small loss, dark a large one. Healthy is one smooth bright basin around the middle.",
        here="",
        chapter="whole",
        spec={**_alone(spec, cells), "height": 320},
    )


_TIGHT = {"zero": False, "nice": False}
_EXACT = {"scale": _TIGHT, "axis": {"format": "d", "tickMinStep": 1, "grid": False}}


def _alone(spec: dict[str, Any], values: list[Any]) -> dict[str, Any]:
    return {"width": "container", "height": HEIGHT, "data": {"values": values}, **spec}


WHOLE: dict[str, Callable[[Any, Model, list[str]], Chart]] = {
    "path_lengths": _path_lengths,
    "gradient_autocorrelation": _shattering,
    "cka": _cka,
    "loss_slice": _loss_slice,
    "loss_surface": _loss_surface,
}
"""What draws each quantity of the whole, by its key in the report."""
