"""Pictures of a run as SVG to be put into a page: drawn in the page's own text colour, the same bytes each time."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_residual._optional import require

# Drawn in a colour that nothing else has, then replaced by the page's: right in a light page and in a dark one.
INK = "#010203"
TRAINING, VALIDATION = "#2a78d6", "#d9730d"
MOST_DOTS = 2000
STYLE = {
    "font.size": 11,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "svg.hashsalt": "keras-residual",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
}


def curves(history: Sequence[Mapping[str, float]], key: str, *, best_epoch: int, name: str) -> str:
    """Returns a line each for training and validation over the epochs, the kept epoch marked.

    Args:
        history: A row an epoch.
        key: `"loss"` or `"accuracy"`.
        best_epoch: The epoch whose model was kept.
        name: Begins every id in the picture, so that several fit into one page.
    """
    epochs = [row["epoch"] for row in history]

    def draw(axes: Any) -> None:
        marker = "o" if len(epochs) < 3 else None
        training = [row[key] for row in history]
        axes.plot(epochs, training, color=TRAINING, marker=marker, label="training examples")
        validation = [row[f"val_{key}"] for row in history]
        axes.plot(epochs, validation, color=VALIDATION, marker=marker, linestyle="--", label="validation examples")
        axes.axvline(best_epoch, color=INK, linewidth=0.8, linestyle=":", label=f"kept: epoch {best_epoch}")
        # A loss falls through powers of ten; a straight scale would show its first epochs only.
        if key == "loss" and min(training + validation) > 0:
            axes.set_yscale("log")
            ticker = require("matplotlib.ticker", extra="train")
            axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(ticker.NullFormatter())
        if key == "accuracy":
            axes.yaxis.set_major_formatter(require("matplotlib.ticker", extra="train").PercentFormatter(1, symbol=" %"))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("epoch")
        axes.set_ylabel(key)
        axes.legend()

    return _svg(draw, name=name)


def predicted_against_true(truth: np.ndarray, answers: np.ndarray, *, name: str) -> str:
    """Returns a dot for each test example, of many for some of them, and the line of perfect answers."""
    count = len(truth)
    rows = np.unique(np.linspace(0, count - 1, min(count, MOST_DOTS)).astype(int))
    truth, answers = truth[rows], answers[rows]
    label = "test examples" if len(rows) == count else f"{len(rows):,} of {count:,} test examples"

    def draw(axes: Any) -> None:
        ends = [float(min(truth.min(), answers.min())), float(max(truth.max(), answers.max()))]
        axes.plot(ends, ends, color=INK, linewidth=0.8, linestyle=":", label="perfect answers")
        axes.plot(truth, answers, "o", color=TRAINING, markersize=4, alpha=0.6, label=label)
        axes.set_xlabel("true value")
        axes.set_ylabel("answer of the model")
        axes.legend()

    return _svg(draw, name=name)


def learning_rates(rates: Sequence[float], losses: Sequence[float], suggestion: float | None, *, name: str) -> str:
    """Returns the loss over a learning rate that rises, with the rate that is suggested."""

    def draw(axes: Any) -> None:
        axes.plot(rates, losses, color=TRAINING, label="training examples")
        if suggestion is not None:
            axes.axvline(suggestion, color=INK, linewidth=0.8, linestyle=":", label=f"suggested: {suggestion:.2g}")
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        axes.legend()

    return _svg(draw, name=name)


def _svg(draw: Any, *, name: str) -> str:
    matplotlib = require("matplotlib", extra="train")
    figure_module = require("matplotlib.figure", extra="train")
    with matplotlib.rc_context(STYLE):
        # A Figure of its own needs no pyplot, hence no display and no global list of open figures.
        figure = figure_module.Figure(figsize=(6.4, 3.6), layout="constrained")
        draw(figure.subplots())
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    # Hidden from readers aloud: the caption of the figure says what there is to see.
    return text.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
