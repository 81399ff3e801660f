"""`keras-residual show`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from keras_residual_cli.backend import start_keras
from keras_residual_cli.failure import reading_the_call
from keras_residual_cli.output import output, print_json, print_table

if TYPE_CHECKING:
    from keras_residual.models.costs import Blueprint
    from keras_residual.models.facts import PretrainedWeights


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A network, or its weights as NAME.TAG; also as torchvision or KerasHub call it."
        ),
    ],
    full: Annotated[
        bool, typer.Option("--full", help="Say everything, of each set of weights too; else what fits on a screen.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with everything.")] = False,
) -> None:
    """Say what a network is, what it costs, and which pretrained weights there are."""
    with output(as_json) as console:
        with reading_the_call():
            start_keras()
            from keras_residual.models.catalog import CATALOG
            from keras_residual.models.costs import blueprint
            from keras_residual.models.facts import describe, papers, pretrained_tags, pretrained_weights
            from keras_residual.models.registry import resolve

            architecture, tag = resolve(name)
        config = CATALOG[architecture]
        drawn = blueprint(architecture)
        tags = [tag] if tag else pretrained_tags(architecture)
        sets = [pretrained_weights(f"{architecture}.{each}") for each in tags]
        words = describe(config)
        if as_json:
            print_json(
                {
                    "name": architecture,
                    "architecture": words,
                    "papers": papers(config),
                    "input_shape": drawn.input_shape,
                    "num_classes": drawn.num_classes,
                    "maps": dict(drawn.maps),
                    **dataclasses.asdict(drawn.costs),
                    "pretrained": [dataclasses.asdict(weights) for weights in sets],
                }
            )
            return
        facts = words | _costs(drawn, papers(config))
        if tag and not full:
            print_table(console, _facts(sets[0].name, _weights(sets[0])))
            console.say(f"The network itself: keras-residual show {architecture}. Both: --full")
            return
        print_table(console, _facts(architecture, facts if full else _folded(facts, drawn, sets)))
        for weights in sets if full else ():
            console.print()
            print_table(console, _facts(weights.name, _weights(weights)))
        if full and not sets:
            console.say("No pretrained weights.")


def _folded(facts: dict[str, str], drawn: Blueprint, sets: list[PretrainedWeights]) -> dict[str, str]:
    """Returns what fits on a screen of 80 by 24: the stages on one line, the weights on another."""
    facts = facts | {"pretrained": _summary(sets)}
    if "blocks in stages" not in facts:
        return facts
    maps = ", ".join(map(_by, drawn.maps.values()))
    stages = {"blocks in stages": f"{facts['blocks in stages']}: {maps}"}
    return {key: text for key, text in (facts | stages).items() if key not in ("channels after stages", "maps")}


def _summary(sets: list[PretrainedWeights]) -> str:
    """Returns how many sets of weights there are, and the best."""
    if not sets:
        return "none"
    count = f"{len(sets)} set{'' if len(sets) == 1 else 's'}"
    found = [(result.top1, weights.tag, result.size) for weights in sets for result in weights.results]
    best = "; best .{1}: {0:.2f} at {2}".format(*max(found)) if found else ""
    return f"{count}, see --full{best}"


def _facts(title: str, facts: dict[str, str]) -> Table:
    table = Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in facts.items():
        if value:
            table.add_row(key, value)
    return table


def _costs(drawn: Blueprint, papers: tuple[str, ...]) -> dict[str, str]:
    found = drawn.costs
    statistics = f", and {found.statistics:,} statistics of norms" if found.statistics else ""
    return {
        "input": f"{_by(drawn.input_shape)}, {drawn.num_classes} classes",
        "maps": ", ".join(f"{stage} {_by(shape)}" for stage, shape in drawn.maps.items()),
        "parameters": f"{found.params:,}{statistics}",
        "multiply-adds": f"{found.macs:,} of convolutions and dense layers",
        "activations": f"{found.activations:,}",
        "papers": ", ".join(papers),
    }


def _weights(weights: PretrainedWeights) -> dict[str, str]:
    results = [f"{result.top1:.2f} at {result.size} (crop {result.crop_pct:g})" for result in weights.results]
    sizes = f"{_by(weights.input_size)} (crop {weights.crop_pct:g})"
    if (weights.test_input_size, weights.test_crop_pct) != (weights.input_size, weights.crop_pct):
        sizes += f", best at {_by(weights.test_input_size)} (crop {weights.test_crop_pct:g})"
    return {
        "top-1": ", ".join(results) or "not published",
        "size": sizes,
        "interpolation": weights.interpolation,
        "mean": _numbers(weights.mean),
        "std": _numbers(weights.std),
        "classes": str(weights.num_classes) if weights.num_classes != 1000 else "",
        "licence": weights.license or "not stated",
        "from": f"hf://{weights.hf_hub_id}" if weights.hf_hub_id else weights.url or "",
        "papers": ", ".join(weights.paper_ids),
    }


def _by(shape: Any) -> str:
    return "×".join(map(str, shape))


def _numbers(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else ", ".join(f"{value:g}" for value in values)
