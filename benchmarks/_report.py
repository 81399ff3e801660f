"""How every benchmark shows its result: a table on the terminal, and JSON with versions and hardware in results/."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("keras-residual", "keras", "numpy", "jax", "flax", "torch", "tensorflow", "tensorflow-cpu")


def report(name: str, rows: list[dict[str, Any]], **extra: Any) -> None:
    """Prints the rows as a table and writes `results/NAME.json`.

    Args:
        name: Name of the benchmark, and of its file of results.
        rows: The table; every row has the same keys, which name the columns.
        extra: What else belongs to the result, for example `runs=9` or `bound_seconds=0.3`.
    """
    result = {
        "benchmark": name,
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "versions": versions(),
        **extra,
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")

    noted = ", ".join(f"{key}={value}" for key, value in extra.items())
    table = Table(title=f"{name}: {noted}" if noted else name, caption=f"{result['hardware']['cpu']}")
    for column, value in rows[0].items():
        table.add_column(column, justify="left" if isinstance(value, str) else "right")
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)


def versions() -> dict[str, str]:
    """Returns the version of Python and of each package that is installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, str | int]:
    """Returns the processor's name and the number of cores that this process may use."""
    cpu = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        names = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    affinity = getattr(os, "sched_getaffinity", None)
    return {"cpu": cpu, "cores": len(affinity(0)) if affinity else os.cpu_count() or 1, "system": platform.system()}
