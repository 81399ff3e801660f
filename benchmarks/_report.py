"""How every benchmark shows its result: a table on the terminal, and JSON with versions and hardware in results/.

A page of the documentation has it between two comments that name the script.
"""

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
PAGES = Path(__file__).parents[1] / "docs"
PACKAGES = ("keras-residual", "keras", "numpy", "jax", "flax", "torch", "tensorflow", "tensorflow-cpu", "timm")
PACKAGES += ("onnx", "onnxscript", "onnxruntime", "openvino", "nncf", "ai-edge-litert")


def report(name: str, rows: list[dict[str, Any]], **extra: Any) -> None:
    """Prints the rows as a table and writes `results/NAME.json`; arguments as in `write`."""
    write(name, rows, **extra)
    noted = ", ".join(f"{key}={value}" for key, value in extra.items())
    table = Table(title=f"{name}: {noted}" if noted else name, caption=f"{hardware()['cpu']}")
    for column, value in rows[0].items():
        table.add_column(column, justify="left" if isinstance(value, str) else "right")
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)


def write(name: str, rows: list[dict[str, Any]], **extra: Any) -> None:
    """Writes `results/NAME.json`, whole or not at all.

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
    beside = RESULTS / f"{name}.json.part"
    beside.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    beside.replace(RESULTS / f"{name}.json")


def kept(name: str) -> list[dict[str, Any]]:
    """Returns the rows of `results/NAME.json` if these versions on this hardware have made them, else none."""
    path = RESULTS / f"{name}.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    same = (found.get("versions"), found.get("hardware")) == (versions(), hardware())
    return found["rows"] if same else []


def write_page(page: str, part: str, text: str) -> None:
    """Puts text into a page of the documentation, between the comments that enclose a part of it."""
    path = PAGES / f"{page}.md"
    start, opening, rest = path.read_text(encoding="utf-8").partition(f"<!-- {part}, by ")
    if not opening:
        raise SystemExit(f"{path} has no part {part!r}.")
    script, _, after = rest.partition(" -->\n")
    _, closing, end = after.partition(f"<!-- end of {part} -->")
    path.write_text(f"{start}{opening}{script} -->\n\n{text}\n\n{closing}{end}", encoding="utf-8")


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
