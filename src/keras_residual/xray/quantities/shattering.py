"""Whether the gradients at nearby inputs have anything to do with one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual import _backend
from keras_residual.xray.quantities.chart import Chart, alone
from keras_residual.xray.quantities.directions import random_component
from keras_residual.xray.quantities.quantity import Passes, Quantity

POINTS = 256
LAGS = (1, 2, 5, 10)


def curve(x: Any, points: int = POINTS) -> np.ndarray:
    """Returns inputs on an arc through the first two samples, of about their length.

    Args:
        x: Array `(batch, …)` of at least two samples.
        points: Number of inputs.
    """
    samples = np.asarray(x, "float32")
    t = np.linspace(-2, 2, points, dtype="float32").reshape(-1, *(1,) * (samples.ndim - 1))
    return samples[0][None] * np.cos(t) + samples[1][None] * np.sin(t)


def gradient_autocorrelation(gradients: Any, lags: Sequence[int] = LAGS) -> dict[int, float]:
    """Returns for each lag `k` the correlation of the gradients at inputs that are `k` places apart on a curve.

    Range: -1 to 1. Brown noise, as of a shallow or a residual net: near 1 at lag 1 and falling slowly; white noise, as
    of a deep plain net with batch norm: near 0. Cost: 256 gradients, one pass of a batch of that size.

    Args:
        gradients: Gradient of the output with respect to each input, `(points, …)`.
        lags: Distances along the curve.

    Reference:
        Balduzzi et al., The Shattered Gradients Problem, 2017. https://arxiv.org/abs/1702.08591, section 2
    """
    g = np.asarray(gradients, "float64").reshape(len(gradients), -1)
    g = g - g.mean(axis=0)
    total = (g * g).mean(axis=0).sum()
    if not total:
        return dict.fromkeys(lags, 0.0)
    return {lag: float((g[:-lag] * g[lag:]).mean(axis=0).sum() / total) for lag in lags}


def _add(look: Any, blocks: Any, model: Any) -> None:
    """Adds `gradient_autocorrelation`, by lag, for a model of one input of floats."""
    x = look.given[0]
    single = hasattr(x, "shape") and keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype))
    model["gradient_autocorrelation"] = None
    if not single or x.shape[0] < 2:
        return
    inputs = curve(ops.convert_to_numpy(x))
    gradients = _backend.input_gradient(
        lambda x: random_component(ops.mean(look.call(x, training=look.training), axis=0, keepdims=True)), inputs
    )
    found = gradient_autocorrelation(ops.convert_to_numpy(gradients))
    model["gradient_autocorrelation"] = {str(lag): value for lag, value in found.items()}


def _draw(by_lag: Mapping[str, float], model: Mapping[str, Any], names: list[str]) -> Chart:
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
        spec=alone(spec, points),
    )


SHATTERING = Quantity(
    key="gradient_autocorrelation",
    name="shattering",
    definition="`gradient_autocorrelation`: whether gradients at nearby inputs are alike",
    of="request",
    of_whole=True,
    by=_add,
    cost=Passes(forward=1, backward=1, samples=POINTS),
    draw=_draw,
)
