"""Writes the tables of `docs/depth.md` from what `benchmarks/depth_cost.py` has measured.

.venv/bin/python tools/depth_tables.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "depth.md"
RESULTS = ROOT / "benchmarks" / "results"
FILES = ("resnet", "stacks")
BEGIN, END = "<!-- tables, by tools/depth_tables.py -->\n", "<!-- end of tables -->"

WHO = {
    ("scan", "jax"): "`scan`, JAX",
    ("unrolled", "jax"): "`unrolled`, JAX",
    ("stock", "jax"): "Keras by hand, JAX",
    ("flax_scan", "jax"): "flax `nn.scan`",
    ("remat", "jax"): '`scan`, `remat="full"`, JAX',
    ("sqrt", "jax"): '`scan`, `remat="sqrt"`, JAX',
    ("reversible", "jax"): "`scan`, reversible, JAX",
    ("reversible_remat", "jax"): '`scan`, reversible, `remat="full"`, JAX',
    ("scan", "tensorflow"): "`scan`, TensorFlow",
    ("stock", "tensorflow"): "Keras by hand, TensorFlow",
    ("unrolled", "torch"): "`unrolled`, PyTorch",
    ("stock", "torch"): "Keras by hand, PyTorch",
    ("torch_eager", "torch"): "PyTorch itself",
    ("torch_compile", "torch"): "PyTorch itself, `torch.compile`",
}
NETWORKS = {
    "resnet": "CIFAR ResNets by depth in layers",
    "dense": "Dense blocks",
    "transformer": "Transformer blocks",
    "conv": "RevNet's blocks",
}
COLUMNS = {
    "build": "build",
    "trace_compile": "compile",
    "first": "first step",
    "step": "step",
    "peak_mb": "peak MB",
    "temp_mb": "XLA's MB",
}


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def page(text: str) -> str:
    """Returns the page with the tables as the results have them."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{PAGE} lacks {BEGIN!r} or {END!r}.")
    files = [json.loads((RESULTS / f"depth_cost_{name}.json").read_text(encoding="utf-8")) for name in FILES]
    rows = [row for file in files for row in file["rows"]]
    tables = [table(network, rows) for network in NETWORKS]
    return before + begin + "\n" + measured_on(files) + "\n".join(tables) + "\n" + end + after


def measured_on(files: list[dict[str, Any]]) -> str:
    """Returns the line about versions and hardware, which both files have in common."""
    first, *others = ({"versions": file["versions"], "hardware": file["hardware"]} for file in files)
    if any(other != first for other in others):
        raise SystemExit(f"The results in {RESULTS} are of different versions or hardware. Measure them again.")
    versions, hardware = first["versions"], first["hardware"]
    named = ", ".join(f"{name} {versions[name]}" for name in ("keras", "jax", "flax", "torch", "tensorflow-cpu"))
    return f"{hardware['cores']} cores of an {hardware['cpu']}, {hardware['system']}; {named}.\n\n"


def table(network: str, rows: list[dict[str, Any]]) -> str:
    """Returns one network's table, in the order of `WHO`, then by depth."""
    order = list(WHO)
    mine = [row for row in rows if row["network"] == network and row["cache"] == "cold"]
    mine.sort(key=lambda row: (order.index((row["impl"], row["backend"])), row["depth"]))
    lines = [f"| {NETWORKS[network]} | depth | {' | '.join(COLUMNS.values())} |"]
    lines.append("| --- |" + " ---: |" * (1 + len(COLUMNS)))
    for row in mine:
        who = WHO[row["impl"], row["backend"]]
        lines.append(f"| {who} | {row['depth']:,} | {' | '.join(shown(row[key], key) for key in COLUMNS)} |")
    return "\n".join(lines) + "\n"


def shown(value: float | None, column: str) -> str:
    """Returns a number with three digits, or a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 or column == "peak_mb" else f"{value:.3g}"


if __name__ == "__main__":
    main()
