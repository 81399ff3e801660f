"""Reports made by hand, so that the page can be tested without a net."""

from __future__ import annotations

import math
from typing import Any

from keras_residual.xray.report import XrayReport

BLOCK: dict[str, Any] = {
    "name": "block",
    "kind": "residual",
    "shape": [16],
    "gradient_norm": 1.0,
    "gradient_spread": 0.1,
    "gradient_nan": 0.0,
    "gradient_underflow": 0.0,
    "power": 1.0,
    "variance": 1.0,
    "squared_mean": 0.01,
    "sample_cosine": 0.1,
    "additive": True,
    "nan": 0.0,
    "inf": 0.0,
    "underflow": 0.0,
    "update_ratio": None,
    "weight_norm": 3.0,
    "weight_gradient_norm": 1.0,
    "weight_gradient_ratio": 0.3,
    "branch_variance": 0.5,
    "branch_ratio": 0.5,
    "branch_cosine": 0.0,
    "share": 0.1,
    "dead_units": None,
    "saturated_units": None,
    "norm": ["pre"],
    "norms": 1,
    "maps": 2,
    "activations": 1,
    "skip_scale": None,
    "scaled": False,
    "projected": False,
    "multi_stream": False,
    "frozen": False,
    "topology": None,
    "duplicate_of": None,
}
MODEL: dict[str, Any] = {
    "name": "net",
    "connections": 4,
    "parameters": 1234,
    "loss": 1.0,
    "dtype": "float32",
    "backend": "jax",
    "training": True,
    "batch": 64,
    "gradient_ratio": 1.0,
    "gradient_norm_input": 1.0,
    "sample_cosine_input": 0.0,
    "signal_ratio": 1.0,
}


def report(count: int = 4, model: dict[str, Any] | None = None, **columns: list[Any]) -> XrayReport:
    """Returns a report of `count` healthy blocks, but for the columns that are given."""
    blocks = [{**BLOCK, "name": f"block_{i}", "share": 1 / count} for i in range(count)]
    for key, values in columns.items():
        for block, value in zip(blocks, values, strict=True):
            block[key] = value
    return XrayReport(blocks, {**MODEL, "connections": count, **(model or {})})


def vanishing(count: int = 12) -> XrayReport:
    """Returns a net of layers whose gradient falls tenfold from each layer to the one before it."""
    gradients = [10.0 ** (i - count + 1) for i in range(count)]
    ratio = {"gradient_ratio": gradients[0], "connections": 0, "gradient_norm_input": gradients[0]}
    nothing: list[Any] = [None] * count
    return report(
        count,
        ratio,
        gradient_norm=gradients,
        kind=["layer"] * count,
        branch_ratio=nothing,
        branch_cosine=nothing,
        share=nothing,
    )


def in_stages() -> XrayReport:
    """Returns a net of pictures in three stages, with dead units in its sixth block."""
    shapes = [[32, 32, 16]] * 4 + [[16, 16, 32]] * 4 + [[8, 8, 64]] * 4
    return report(
        12,
        shape=shapes,
        projected=[i in (4, 8) for i in range(12)],
        gradient_norm=[0.5 + 0.1 * (i % 4) for i in range(12)],
        variance=[1.0 + i % 4 for i in range(12)],
        branch_ratio=[(1 + i % 4) ** -0.5 for i in range(12)],
        dead_units=[0.4 if i == 5 else 0.02 for i in range(12)],
    )


def of_everything(count: int = 6) -> XrayReport:
    """Returns a report with every quantity that can be asked for."""
    at = [i / 10 - 1 for i in range(21)]
    rows = [[a * a + b * b + 0.1 for b in at] for a in at]
    model = {
        "path_lengths": [math.comb(count, k) / 2**count for k in range(count + 1)],
        "effective_depth": count / 2,
        "gradient_autocorrelation": {"1": 0.9, "2": 0.7, "5": 0.3, "10": 0.0},
        "cka": [[1 / (1 + abs(i - j)) for j in range(count)] for i in range(count)],
        "loss_slice": {"at": at, "loss": [a * a for a in at], "curvature": 2.0},
        "loss_surface": {"at": at, "loss": rows},
        "sharpness": 12.5,
        "lesion_loss": 1.0,
    }
    each = {
        "chi": 1.1,
        "branch_gain": 0.4,
        "singular_value": 1.7,
        "lesion": 0.2,
        "early_exit": 0.6,
        "stream_collapse": 0.5,
        "transport_gain": 1.0,
        "double_stochasticity": 1e-5,
        "update_ratio": 1e-3,
        "dead_units": 0.05,
        "saturated_units": 0.1,
    }
    columns = {key: [value * (1 + 0.1 * i) for i in range(count)] for key, value in each.items()}
    return report(count, model, **columns)
