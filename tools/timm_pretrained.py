"""Prints the table of pretrained weights, `models/data/timm_pretrained.json` of the package, from the installed timm.

What each set of weights expects of pictures, its licence and its paper come from timm itself. Its accuracies are in
`results/results-imagenet.csv` of timm's repository, which the package lacks; without `--results` they stay as they are.

    .venv/bin/python tools/timm_pretrained.py [--results results-imagenet.csv --revision COMMIT] > table.json
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from pathlib import Path
from typing import Any

from import_timm import import_timm

TABLE = Path(__file__).parents[1] / "src" / "keras_residual" / "models" / "data" / "timm_pretrained.json"
MODULES = ("resnet", "resnetv2", "resnest", "res2net", "sknet", "senet")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, help="results-imagenet.csv of timm's repository")
    parser.add_argument("--revision", help="the commit that it is of")
    arguments = parser.parse_args()
    if bool(arguments.results) != bool(arguments.revision):
        parser.error("--results and --revision go together")
    if arguments.results:
        revision, results = arguments.revision, read_results(arguments.results)
    else:
        present = json.loads(TABLE.read_text(encoding="utf-8"))
        revision, results = present["results_of"], results_in(present)
    print(to_json(table(results, revision)), end="")


def table(results: dict[str, list[list[float]]], revision: str) -> dict[str, Any]:
    """Returns the table.

    Args:
        results: For each `architecture.tag` lists of image size, crop_pct and top-1 accuracy in per cent.
        revision: Commit of timm's repository that the results are of.
    """
    timm = import_timm()
    architectures = {}
    names = {name for module in MODULES for name in timm.list_models(module=module)}
    for name in sorted(names, key=natural):
        weights = [w for w in timm.list_pretrained(f"{name}.*") if w.split(".")[0] == name]
        tags = sorted(w.split(".", 1)[1] for w in weights)
        default = timm.models.get_pretrained_cfg(name).tag if tags else None
        if tags and default not in tags:
            raise SystemExit(f"The default of {name}, {default!r}, has no weights.")
        architectures[name] = {
            "default": default,
            "tags": {tag: facts(timm.models.get_pretrained_cfg(f"{name}.{tag}"), results) for tag in tags},
        }
    return {
        "written_by": "tools/timm_pretrained.py",
        "timm": timm.__version__,
        "results_of": revision,
        "architectures": architectures,
    }


def facts(cfg: Any, results: dict[str, list[list[float]]]) -> dict[str, Any]:
    """Returns what the table says of one set of weights; what timm leaves open is left out."""
    papers = [cfg.paper_ids] if isinstance(cfg.paper_ids, str) else list(cfg.paper_ids or ())
    entry = {
        "hf_hub_id": cfg.hf_hub_id,
        "url": None if cfg.hf_hub_id else cfg.url,
        "input_size": list(cfg.input_size[1:]),
        "test_input_size": list(cfg.test_input_size[1:]) if cfg.test_input_size else None,
        "crop_pct": cfg.crop_pct,
        "test_crop_pct": cfg.test_crop_pct,
        "crop_mode": cfg.crop_mode,
        "interpolation": cfg.interpolation,
        "mean": list(cfg.mean),
        "std": list(cfg.std),
        "num_classes": cfg.num_classes,
        "license": cfg.license,
        "paper_ids": papers or None,
        "results": sorted(results.get(f"{cfg.architecture}.{cfg.tag}", ())) or None,
    }
    return {key: value for key, value in entry.items() if value is not None}


def read_results(path: Path) -> dict[str, list[list[float]]]:
    """Returns the accuracies in timm's file."""
    results: dict[str, list[list[float]]] = {}
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            line = [int(row["img_size"]), float(row["crop_pct"]), float(row["top1"])]
            results.setdefault(row["model"], []).append(line)
    return results


def results_in(present: dict[str, Any]) -> dict[str, list[list[float]]]:
    """Returns the accuracies in a table."""
    return {
        f"{name}.{tag}": entry.get("results", [])
        for name, architecture in present["architectures"].items()
        for tag, entry in architecture["tags"].items()
    }


def natural(name: str) -> list[tuple[int, str]]:
    """Returns a key that sorts numbers in names by value."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def to_json(content: dict[str, Any]) -> str:
    """Returns the table as JSON with a line for each set of weights."""
    head = [f"{json.dumps(key)}: {json.dumps(content[key])}" for key in ("written_by", "timm", "results_of")]
    blocks = []
    for name, architecture in content["architectures"].items():
        lines = ",\n".join(f"      {json.dumps(tag)}: {json.dumps(e)}" for tag, e in architecture["tags"].items())
        tags = f"{{\n{lines}\n    }}" if lines else "{}"
        default = json.dumps(architecture["default"])
        blocks.append(f'  {json.dumps(name)}: {{\n    "default": {default},\n    "tags": {tags}\n  }}')
    body = ",\n".join(blocks)
    return "{\n" + ",\n".join(head) + ',\n"architectures": {\n' + body + "\n}\n}\n"


if __name__ == "__main__":
    main()
