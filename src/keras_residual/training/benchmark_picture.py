"""The picture of a benchmark: a bar a format for size, latency and throughput."""

from __future__ import annotations

import io
from collections.abc import Sequence

from keras_residual._optional import require
from keras_residual.training.benchmark import Row


def draw(rows: Sequence[Row]) -> bytes:
    """Returns the picture as PNG.

    Args:
        rows: What was measured; those of formats that could not be had are left out.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    known = [(row.format, row.bytes, row.cost) for row in rows if row.bytes is not None and row.cost is not None]
    names = [name for name, _, _ in known]
    first, last = (known[0][2].speeds[place].batch_size for place in (0, -1))
    parts = (
        ("size, MB", [size / 1e6 for _, size, _ in known]),
        (f"time of a batch of {first}, ms", [cost.speeds[0].milliseconds for _, _, cost in known]),
        (f"rows a second in batches of {last}", [cost.speeds[-1].rows_per_second for _, _, cost in known]),
    )
    # A Figure of its own needs no pyplot, hence no display.
    figure = require("matplotlib.figure", extra="plot").Figure(figsize=(12, 1 + 0.4 * len(known)), layout="constrained")
    for axes, (title, values) in zip(figure.subplots(1, 3, sharey=True), parts, strict=True):
        axes.bar_label(axes.barh(names, values, color="#2a78d6"), fmt=_short, padding=3, fontsize="small")
        axes.set_title(title, fontsize="medium")
        axes.margins(x=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].invert_yaxis()
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=140)
    return file.getvalue()


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
