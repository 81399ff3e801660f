"""The picture of a comparison: what came of the nets, by depth, and below it gradient and signal within each net."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from keras_residual._optional import require
from keras_residual.training.compare_settings import LAYERS_IN_A_BLOCK

# Told apart by blue against orange, which colour-blind readers see too, by the marker and by the dash.
LOOKS = {
    "plain": {"color": "#d9730d", "marker": "s", "linestyle": "--"},
    "residual": {"color": "#2a78d6", "marker": "o", "linestyle": "-"},
}
PALEST = 0.3

WITHIN = (
    ("gradient_by_depth_start", "norm of dLoss/dStream", "gradient, before training"),
    ("gradient_by_depth_end", "norm of dLoss/dStream", "gradient, after training"),
    ("signal_by_depth_start", "mean square of the stream", "signal, before training"),
    ("signal_by_depth_end", "mean square of the stream", "signal, after training"),
)
"""What is drawn within the nets: the key of the rows, the axis, and the title."""


def draw(results: Mapping[str, Any]) -> bytes:
    """Returns the picture as PNG.

    Args:
        results: What `results.json` holds.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    figure_module = require("matplotlib.figure", extra="plot")
    within = [part for part in WITHIN if any(row.get(part[0]) for row in results["rows"])]
    # A Figure of its own needs no pyplot, hence no display.
    figure = figure_module.Figure(figsize=(12, 7.2 if within else 3.8), layout="constrained")
    figure.suptitle(
        f"{results['data']}: nets of equal width {results['width']}, with and without the residual connection"
    )
    parts = figure.subfigures(2 if within else 1, 1, squeeze=False)[:, 0]
    _draw_nets(parts[0].subplots(1, 3), results)
    if within:
        _draw_within(parts[1].subplots(1, len(within), squeeze=False)[0], within, results)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=140)
    return file.getvalue()


def _draw_nets(all_axes: Any, results: Mapping[str, Any]) -> None:
    """Draws what came of the nets, each a point, by their depth."""
    loss, score, gradient = all_axes
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
        _plain_frame(axes)
        if axes is not score and axes.lines:
            axes.legend(frameon=False, fontsize="small")


def _lines(axes: Any, results: Mapping[str, Any], key: str, *, suffix: str = "", alpha: float = 1.0) -> None:
    for net, look in LOOKS.items():
        rows = sorted((row for row in results["rows"] if row["net"] == net), key=lambda row: row["depth"])
        known = [(row["depth"], row[key]) for row in rows if row[key] is not None]
        if known:
            axes.plot(*zip(*known, strict=True), label=f"{net}{suffix}", alpha=alpha, **look)


def _draw_within(all_axes: Any, within: Any, results: Mapping[str, Any]) -> None:
    """Draws each net as a line from its stem to its last block, the deeper the darker."""
    depths = sorted({row["depth"] for row in results["rows"]})
    for axes, (key, label, title) in zip(all_axes, within, strict=True):
        for row in results["rows"]:
            look = {name: value for name, value in LOOKS[row["net"]].items() if name != "marker"}
            strength = PALEST + (1 - PALEST) * (depths.index(row["depth"]) + 1) / len(depths)
            known = [
                (LAYERS_IN_A_BLOCK * index, value)
                for index, value in enumerate(row.get(key) or ())
                if value is not None and value > 0
            ]
            if known:
                axes.plot(*zip(*known, strict=True), alpha=strength, label=f"{row['net']}, {row['depth']}", **look)
        axes.set_yscale("log")
        axes.set_title(title, fontsize="medium")
        axes.set_xlabel("layers in front")
        axes.set_ylabel(label)
        _plain_frame(axes)
    if all_axes[0].lines:
        all_axes[0].legend(frameon=False, fontsize="x-small", ncols=2)


def _plain_frame(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
