"""`keras-residual models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from keras_residual_cli.backend import start_keras
from keras_residual_cli.failure import CallError, reading_the_call
from keras_residual_cli.output import output, print_json, print_table

if TYPE_CHECKING:
    from keras_residual.models.facts import PretrainedWeights


def models(
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="Names, for example 'resnet50*'.")] = "*",
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="List the sets of pretrained weights, and not the architectures.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the networks: what they cost, and the best accuracy that is published for their weights."""
    with output(as_json) as console:
        with reading_the_call():
            start_keras()
            from keras_residual._errors import did_you_mean
            from keras_residual.models.registry import list_models

            names = list_models(pattern, pretrained=True if pretrained else None)
            if not names:
                raise CallError(f"No network has the name {pattern!r}.{did_you_mean(pattern, list_models())}")
        rows = [_weights(name) if pretrained else _architecture(name) for name in names]
        if as_json:
            print_json({"models": rows})
            return
        print_table(console, _table(rows))


def best_top1(sets: list[PretrainedWeights]) -> dict[str, Any]:
    """Returns the best published accuracy of some sets of weights in per cent, and the size of the pictures."""
    results = [result for weights in sets for result in weights.results]
    best = max(results, key=lambda result: result.top1, default=None)
    return {"top1": best.top1, "top1_size": best.size} if best else {"top1": None, "top1_size": None}


def _architecture(name: str) -> dict[str, Any]:
    from keras_residual.models.facts import pretrained_tags, pretrained_weights

    sets = [pretrained_weights(f"{name}.{tag}") for tag in pretrained_tags(name)]
    return {"name": name, **_costs(name), **best_top1(sets), "pretrained": len(sets)}


def _weights(name: str) -> dict[str, Any]:
    from keras_residual.models.facts import pretrained_weights

    weights = pretrained_weights(name)
    return {"name": name, **_costs(weights.architecture), **best_top1([weights]), "license": weights.license}


def _costs(name: str) -> dict[str, Any]:
    from keras_residual.models.facts import counted

    found = counted(name)
    return {"params": found.costs.params, "macs": found.costs.macs, "input_shape": list(found.input_shape)}


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        caption="top-1: ImageNet-1k, as published",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    last = "licence" if "license" in rows[0] else "sets"
    for title in ("name", "params", "GMACs", "at", "top-1", "at", last):
        table.add_column(title, justify="left" if title in ("name", "licence") else "right", overflow="fold")
    for row in rows:
        *sizes, _ = row["input_shape"]
        table.add_row(
            row["name"],
            millions(row["params"]),
            billions(row["macs"]),
            str(sizes[0]) if len(set(sizes)) == 1 else "×".join(map(str, sizes or row["input_shape"])),
            "" if row["top1"] is None else f"{row['top1']:.2f}",
            "" if row["top1"] is None else str(row["top1_size"]),
            str(row["license"] or "") if last == "licence" else str(row["pretrained"] or ""),
        )
    return table


def billions(count: int) -> str:
    """Returns a number of multiply-adds in 10^9, as in `"4.09"`, small ones with as many digits as they need."""
    return f"{count / 1e9:.2f}" if count >= 1e7 else f"{count / 1e9:.1g}"


def millions(count: int) -> str:
    """Returns a number of weights as in `"25.6 M"`, small ones with more digits."""
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e6:.2f} M"
