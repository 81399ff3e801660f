"""The picture of a comparison: training loss, test score and input gradient by depth, a line a net."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from keras_residual._optional import require

# Told apart by blue against orange, which colour-blind readers see too, by the marker and by the dash.
LOOKS = {
    "plain": {"color": "#d9730d", "marker": "s", "linestyle": "--"},
    "residual": {"color": "#2a78d6", "marker": "o", "linestyle": "-"},
}


def draw(results: Mapping[str, Any]) -> bytes:
    """Returns the picture as PNG.

    Args:
        results: What `results.json` holds.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    figure_module = require("matplotlib.figure", extra="plot")
    # A Figure of its own needs no pyplot, hence no display.
    figure = figure_module.Figure(figsize=(12, 3.8), layout="constrained")
    loss, score, gradient = figure.subplots(1, 3)
    figure.suptitle(
        f"{results['data']}: nets of equal width {results['width']}, with and without the residual connection"
    )

    _lines(loss, results, "train_loss")
    loss.set_ylabel("training loss of the finished net")
    classes = results["task"] == "classification"
    _lines(score, results, "test_accuracy" if classes else "test_rmse")
    score.set_ylabel("test accuracy" if classes else "test error (rmse)")
    if classes:
        score.set_ylim(0, 1.03)
    else:
        score.set_ylim(bottom=0)
    _lines(gradient, results, "gradient_start", suffix=", before training")
    _lines(gradient, results, "gradient_end", suffix=", after training", alpha=0.45)
    gradient.set_yscale("log")
    gradient.set_ylabel("norm of dLoss/dInput")

    depths = sorted({row["depth"] for row in results["rows"]})
    for axes in (loss, score, gradient):
        axes.set_xscale("log", base=2)
        axes.set_xticks(depths, [str(depth) for depth in depths])
        axes.minorticks_off()
        axes.set_xlabel("depth (layers in blocks)")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
        if axes is not score and axes.lines:
            axes.legend(frameon=False, fontsize="small")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=140)
    return file.getvalue()


def _lines(axes: Any, results: Mapping[str, Any], key: str, *, suffix: str = "", alpha: float = 1.0) -> None:
    for net, look in LOOKS.items():
        rows = sorted((row for row in results["rows"] if row["net"] == net), key=lambda row: row["depth"])
        known = [(row["depth"], row[key]) for row in rows if row[key] is not None]
        if known:
            axes.plot(*zip(*known, strict=True), label=f"{net}{suffix}", alpha=alpha, **look)
