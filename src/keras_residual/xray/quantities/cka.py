"""How much what two depths say is the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_residual.xray.quantities.chart import WHOLE_STEPS, Chart, alone
from keras_residual.xray.quantities.quantity import STREAMS_KEPT, Passes, Quantity

MOST_CELLS = 64
"""Depths in a row of a map of pairs; of more, some are left out evenly."""


def gram(features: Any) -> np.ndarray:
    """Returns the centred `X X'` of features, with the norm 1 (0 for features that do not differ).

    The sum of the product of two of them, entry by entry, is the linear centred kernel alignment of two depths: 1 where
    their features are the same up to a rotation.

    Range of the alignment: 0 to 1. Neighbours near 1 repeat one another; a large square of such depths is capacity that
    is not used. With few samples it is biased upwards. Cost: one forward pass, and `batch^2` for each pair of depths.

    Args:
        features: Array `(batch, …)`, of the same samples at each depth; the rest may differ.

    Reference:
        Kornblith et al., Similarity of Neural Network Representations Revisited, 2019. https://arxiv.org/abs/1905.00414
    """
    x = np.asarray(features, "float64").reshape(len(features), -1)
    x = x - x.mean(axis=0)
    largest = np.abs(x).max()
    x = x / largest if largest > 0 else x
    kernel = x @ x.T
    norm = np.linalg.norm(kernel)
    return kernel / norm if norm else kernel


def _add(look: Any, blocks: Any, model: Any) -> None:
    """Adds `cka`, a row for each block."""
    grams = [None if one is None else gram(one) for one in look.features()]
    model["cka"] = [[None if a is None or b is None else float((a * b).sum()) for b in grams] for a in grams]


def _draw(rows: list[list[float | None]], model: Mapping[str, Any], names: list[str]) -> Chart:
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
            "x": {"field": "left", "type": "quantitative", "title": "block", **WHOLE_STEPS},
            "x2": {"field": "right"},
            "y": {"field": "low", "type": "quantitative", "title": "block", **WHOLE_STEPS},
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
        spec={**alone(spec, cells), "height": 320},
    )


CKA = Quantity(
    key="cka",
    definition="how alike what any two depths say is",
    of="request",
    of_whole=True,
    by=_add,
    cost=Passes(forward=1, beside=STREAMS_KEPT),
    draw=_draw,
)
